//! Which mapping is at an address, asked of the kernel, never remembered.
//!
//! # Guarantee
//! An answer was true at an instant of the call. Where [`Maps::can_query_without_allocating`] says so, a query is one
//! ioctl on a descriptor that was opened before, with no allocation: the pump may make it.
//!
//! # Not covered
//! The descriptor belongs to the address space of the process that opened it: after exec it describes memory that
//! nobody has, and in a forked child it describes the parent.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::abi;

/// The bytes that the text form is read in at a time: the kernel gives about a page of whole lines for each read.
const TEXT_CHUNK: usize = 16 * 1024;
/// Room for the name of a System V segment: `/SYSV`, eight digits of its key, ` (deleted)`, a NUL (`newseg` in `ipc/shm.c`).
const SYSTEM_V_NAME: usize = 32;
/// Where addresses begin that belong to the kernel.
const KERNEL_HALF: u64 = 1 << 63;

/// One mapping of the address space. Addresses, offset and page size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vma {
    /// The first address.
    pub start: u64,
    /// The first address behind it.
    pub end: u64,
    /// It can be read.
    pub readable: bool,
    /// It can be written.
    pub writable: bool,
    /// It can be executed.
    pub executable: bool,
    /// Writes are seen by other mappings of the same object.
    pub shared: bool,
    /// Where in its file it begins.
    pub offset: u64,
    /// The inode of its file; zero when it has none.
    pub inode: u64,
    /// The device of its file.
    pub dev_major: u32,
    /// The device of its file.
    pub dev_minor: u32,
    /// The size of the pages that it is made of: larger than the system's for hugetlbfs.
    pub page_size: u64,
}

/// The open list of this process's mappings.
///
/// ```
/// use pagemirror_linux::maps::Maps;
/// let here = 0;
/// let stack = Maps::open()?.query(&raw const here as u64, false)?.expect("the stack is mapped");
/// assert!(stack.writable && !stack.shared);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Maps {
    fd: OwnedFd,
    has_queries: bool,
}

impl Maps {
    /// Opens the list and finds out whether this kernel answers queries (Linux 6.11).
    ///
    /// # Errors
    /// When `/proc` is not mounted, or a query fails for another reason than being unknown.
    pub fn open() -> io::Result<Self> {
        let fd = rustix::fs::open(c"/proc/self/maps", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let has_queries = match abi::query_mapping(fd.as_fd(), 0, abi::PROCMAP_QUERY_COVERING_OR_NEXT) {
            Ok(_) => true,
            Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => false,
            Err(error) => return Err(error),
        };
        Ok(Self { fd, has_queries })
    }

    /// Whether [`query`](Self::query) is one system call without allocation. Otherwise it reads and parses text.
    #[must_use]
    pub fn can_query_without_allocating(&self) -> bool {
        self.has_queries
    }

    /// The mapping at `address`, or with `covering_or_next` the next one behind it when none is there.
    ///
    /// # Errors
    /// ESRCH when the address space is gone. That nothing is mapped is `None`, not an error.
    ///
    /// # Blocking
    /// May wait for a change of the address space that runs, never for one that waits to be reported.
    pub fn query(&self, address: u64, covering_or_next: bool) -> io::Result<Option<Vma>> {
        if !self.has_queries {
            return self.query_text(address, covering_or_next);
        }
        let flags = if covering_or_next { abi::PROCMAP_QUERY_COVERING_OR_NEXT } else { 0 };
        match abi::query_mapping(self.fd.as_fd(), address, flags) {
            Ok(answer) => Ok(Some(Vma::from_answer(&answer))),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the mapping at `address` is a System V segment, which shmdt(2) takes away without telling anybody. Where
    /// [`can_query_without_allocating`](Self::can_query_without_allocating) says no, it allocates.
    ///
    /// # Errors
    /// ENOENT when nothing is mapped there, ESRCH when the address space is gone.
    pub fn is_system_v(&self, address: u64) -> io::Result<bool> {
        if self.has_queries {
            let mut name = [0; SYSTEM_V_NAME];
            // A name that does not fit is another one's.
            return Ok(abi::query_name(self.fd.as_fd(), address, &mut name)? && is_system_v_name(&name));
        }
        let text = read_from_start(&self.fd)?;
        let mut lines = text.split(|&byte| byte == b'\n');
        let line = lines.find(|line| parse_line(line).is_some_and(|vma| vma.start <= address && address < vma.end));
        let line = line.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        let name = line.iter().position(|&byte| byte == b'/').map_or(&[][..], |at| &line[at..]);
        Ok(is_system_v_name(name))
    }

    /// As [`query`](Self::query), by the text that every kernel has. Allocates.
    fn query_text(&self, address: u64, covering_or_next: bool) -> io::Result<Option<Vma>> {
        let text = read_from_start(&self.fd)?;
        let mut found = None;
        for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let vma = parse_line(line).ok_or(ErrorKind::InvalidData)?;
            // The text ends with a page of the kernel's (vsyscall), which is no mapping of the process.
            if vma.start >= KERNEL_HALF {
                break;
            }
            if address < vma.end {
                found = (covering_or_next || vma.start <= address).then_some(vma);
                break;
            }
        }
        // Only a mapping with a file can be one of hugetlbfs, and only the dear text tells the size of its pages.
        match found {
            Some(mut vma) if vma.inode != 0 => {
                vma.page_size = page_size_from_smaps(&vma)?;
                Ok(Some(vma))
            }
            found => Ok(found),
        }
    }
}

impl Vma {
    fn from_answer(answer: &abi::ProcmapQuery) -> Self {
        let has = |flag| answer.vma_flags & flag != 0;
        Self {
            start: answer.vma_start,
            end: answer.vma_end,
            readable: has(abi::PROCMAP_QUERY_VMA_READABLE),
            writable: has(abi::PROCMAP_QUERY_VMA_WRITABLE),
            executable: has(abi::PROCMAP_QUERY_VMA_EXECUTABLE),
            shared: has(abi::PROCMAP_QUERY_VMA_SHARED),
            offset: answer.vma_offset,
            inode: answer.inode,
            dev_major: answer.dev_major,
            dev_minor: answer.dev_minor,
            page_size: answer.vma_page_size,
        }
    }
}

/// Whether a mapping of this name is a System V segment. A file of such a name at the root of its file system that was deleted
/// is taken for one, which costs its mapping the cache and nothing else.
fn is_system_v_name(name: &[u8]) -> bool {
    let Some(key) = name.strip_prefix(b"/SYSV") else { return false };
    key.len() > 8 && key[..8].iter().all(u8::is_ascii_hexdigit) && key[8..].starts_with(b" (deleted)")
}

/// The whole file from its start. Each read begins where the last one ended, which is at a line.
fn read_from_start(fd: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        let filled = text.len();
        text.resize(filled + TEXT_CHUNK, 0);
        let read = rustix::io::pread(fd, &mut text[filled..], filled as u64)?;
        text.truncate(filled + read);
        if read == 0 {
            return Ok(text);
        }
    }
}

/// The size of the pages of `vma`, from the one text that has it.
fn page_size_from_smaps(vma: &Vma) -> io::Result<u64> {
    let mut text = Vec::new();
    File::open("/proc/self/smaps")?.read_to_end(&mut text)?;
    Ok(parse_smaps_page_size(&text, vma.start).unwrap_or_else(system_page_size))
}

fn system_page_size() -> u64 {
    rustix::param::page_size() as u64
}

/// One line of `/proc/self/maps`: `start-end rwxp offset major:minor inode name`, in hexadecimal but for the inode.
/// The page size is the system's.
fn parse_line(line: &[u8]) -> Option<Vma> {
    // The name may hold any byte, so only what stands before it must be text.
    let mut fields = line.split(|&byte| byte == b' ').filter(|field| !field.is_empty());
    let (start, end) = split_at_byte(fields.next()?, b'-')?;
    let [readable, writable, executable, shared] = parse_flags(fields.next()?)?;
    let offset = number(fields.next()?, 16)?;
    let (major, minor) = split_at_byte(fields.next()?, b':')?;
    let inode = number(fields.next()?, 10)?;
    Some(Vma {
        start: number(start, 16)?,
        end: number(end, 16)?,
        readable,
        writable,
        executable,
        shared,
        offset,
        inode,
        dev_major: number(major, 16)?.try_into().ok()?,
        dev_minor: number(minor, 16)?.try_into().ok()?,
        page_size: system_page_size(),
    })
}

/// Readable, writable, executable, shared, from four letters.
fn parse_flags(field: &[u8]) -> Option<[bool; 4]> {
    let &[read, write, execute, share] = field else { return None };
    let letter = |byte: u8, set: u8, clear: u8| (byte == set || byte == clear).then_some(byte == set);
    Some([
        letter(read, b'r', b'-')?,
        letter(write, b'w', b'-')?,
        letter(execute, b'x', b'-')?,
        letter(share, b's', b'p')?,
    ])
}

/// `KernelPageSize` of the mapping that begins at `start`, in bytes.
fn parse_smaps_page_size(text: &[u8], start: u64) -> Option<u64> {
    let mut lines = text.split(|&byte| byte == b'\n');
    lines.find(|line| parse_line(line).is_some_and(|vma| vma.start == start))?;
    let line = lines.find_map(|line| line.strip_prefix(b"KernelPageSize:"))?;
    let kilobytes = number(line.trim_ascii().strip_suffix(b" kB")?, 10)?;
    Some(kilobytes * 1024)
}

fn split_at_byte(field: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = field.iter().position(|&found| found == byte)?;
    Some((&field[..at], &field[at + 1..]))
}

fn number(field: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(field).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::mapping::Mapping;

    #[test]
    fn a_line_with_a_file_is_read_whatever_its_name() {
        let vma =
            parse_line(b"7f0000001000-7f0000003000 r-xs 0000a000 fd:1f 4294967301 /tmp/a b-c d:e (deleted)").unwrap();
        assert_eq!((vma.start, vma.end), (0x7f00_0000_1000, 0x7f00_0000_3000));
        assert!(vma.readable && !vma.writable && vma.executable && vma.shared);
        assert_eq!((vma.offset, vma.dev_major, vma.dev_minor, vma.inode), (0xa000, 0xfd, 0x1f, 4_294_967_301));
    }

    #[test]
    fn a_line_without_a_name_and_one_that_is_not_text_are_read() {
        assert!(parse_line(b"1000-2000 ---p 00000000 00:00 0 ").is_some());
        assert!(parse_line(b"1000-2000 rw-p 00000000 00:00 0      /tmp/\xff\xfe").is_some());
        assert_eq!(parse_line(b"ffffffffff600000-ffffffffff601000 --xp 0 00:00 0 [vsyscall]").unwrap().inode, 0);
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for line in [&b""[..], b"1000", b"1000-2000", b"1000-2000 rw-q 0 00:00 0", b"1000-zzzz rw-p 0 00:00 0"] {
            assert_eq!(parse_line(line), None, "{}", line.escape_ascii());
        }
        assert_eq!(parse_line(b"1000-2000 rwp 0 00:00 0"), None);
        assert_eq!(parse_line(b"1000-2000 rw-p 0 0000 0"), None);
    }

    #[test]
    fn a_system_v_segment_is_known_by_its_name() {
        assert!(is_system_v_name(b"/SYSV00c0ffee (deleted)\0\0"));
        for other in [
            &b"/SYSV00c0ffee"[..],
            b"/memfd:SYSV00c0ffee (deleted)",
            b"/SYSVx0c0ffee (deleted)",
            b"/SYSV (deleted)",
            b"",
        ] {
            assert!(!is_system_v_name(other), "{}", other.escape_ascii());
        }
    }

    #[test]
    fn the_page_size_is_that_of_the_mapping_asked_for() {
        let text = b"1000-2000 rw-p 0 00:00 0\nSize: 4 kB\nKernelPageSize:        4 kB\n\
            200000-400000 rw-s 0 00:0f 7 /anon_hugepage (deleted)\nKernelPageSize:     2048 kB\n";
        assert_eq!(parse_smaps_page_size(text, 0x1000), Some(4096));
        assert_eq!(parse_smaps_page_size(text, 0x20_0000), Some(2 << 20));
        assert_eq!(parse_smaps_page_size(text, 0x3000), None);
    }

    fn assert_both_agree(address: u64, what: &str) -> Option<Vma> {
        let maps = Maps::open().unwrap();
        if !maps.can_query_without_allocating() {
            println!("SKIPPED: {what}: this kernel has no PROCMAP_QUERY, so there is nothing to agree with");
            return None;
        }
        // Other tests map beside this one, and the kernel merges neighbours: the two are asked until nothing moved.
        for _ in 0..1000 {
            let by_query = maps.query(address, false).unwrap();
            let by_text = maps.query_text(address, false).unwrap();
            if by_query == maps.query(address, false).unwrap() {
                assert_eq!(by_query, by_text, "{what}");
                return by_query;
            }
        }
        panic!("{what}: the mapping never stays the same");
    }

    #[test]
    fn query_and_text_agree_on_ordinary_mappings() {
        let anonymous = Mapping::new(8 * 4096).unwrap();
        let found = assert_both_agree(anonymous.start() + 4096, "anonymous").unwrap();
        assert!(found.start <= anonymous.start() && anonymous.start() + 8 * 4096 <= found.end, "{found:?}");
        assert!(found.readable && found.writable && !found.executable && !found.shared && found.inode == 0);
        anonymous.forbid_access().unwrap();
        let closed = assert_both_agree(anonymous.start(), "no access").unwrap();
        assert!(!closed.readable && !closed.writable && !closed.executable);
        let code = assert_both_agree(system_page_size as *const () as u64, "program text").unwrap();
        assert!(code.executable && code.inode != 0);
        let local = 0;
        assert_both_agree(&raw const local as u64, "stack");
        assert_eq!(assert_both_agree(0, "nothing"), None);
    }

    #[test]
    fn query_and_text_agree_on_shared_files_and_huge_pages() {
        let memfd = |name, flags| rustix::fs::memfd_create(name, flags).map(File::from);
        let plain = memfd(c"a name-with: odd", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        plain.set_len(8 * 4096).unwrap();
        let shared = Mapping::of_file(&plain, 4096, 4 * 4096).unwrap();
        let found = assert_both_agree(shared.start(), "memfd").unwrap();
        assert!(found.shared && found.offset == 4096 && found.inode != 0);

        const HUGE: usize = 2 << 20;
        let huge = memfd(c"huge", rustix::fs::MemfdFlags::HUGETLB | rustix::fs::MemfdFlags::HUGE_2MB);
        let mapped = huge.map_err(io::Error::from).and_then(|file| {
            file.set_len(HUGE as u64)?;
            Mapping::of_file(&file, 0, HUGE)
        });
        match mapped {
            Ok(mapped) => {
                let found = assert_both_agree(mapped.start(), "hugetlb").unwrap();
                assert_eq!(found.page_size, HUGE as u64);
            }
            Err(error) => println!("SKIPPED: hugetlb: no huge pages to be had: {error}"),
        }
    }

    #[test]
    fn query_and_text_agree_on_a_private_file_and_on_what_comes_next() {
        let file = OpenOptions::new().read(true).open("/proc/self/exe").unwrap();
        let maps = Maps::open().unwrap();
        assert_ne!(file.as_raw_fd(), maps.fd.as_raw_fd());
        // The whole list, by asking for what is next: nothing else may map while it is walked, so only what both saw
        // at the same addresses is compared.
        let (mut address, mut agreed) = (0, 0);
        while let Some(vma) = maps.query(address, true).unwrap() {
            agreed += u32::from(maps.query_text(address, true).unwrap() == Some(vma));
            address = vma.end;
        }
        assert!(agreed > 10, "only {agreed} mappings of the whole process were the same in both forms");
        assert_eq!(maps.query_text(address, true).unwrap(), None);
    }
}
