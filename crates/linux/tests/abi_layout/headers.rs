//! The C compiler's opinion: sizes, offsets and numbers, where its headers have them.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::process::Command;

use pagemirror_linux::abi::{self, message_offset};

use crate::{offset_of, skipped};

/// One thing to compare: the macro without which the headers lack it, the expression in C, and our value.
type Fact = (&'static str, String, u64);

/// The facts of a structure: its size, and the offset of each field.
macro_rules! layout {
    ($macro:literal, $ours:ident as $theirs:literal { $($field:ident),+ }) => {{
        let size = ($macro, format!("sizeof(struct {})", $theirs), size_of::<abi::$ours>() as u64);
        let offsets = [$(($macro, format!("offsetof(struct {}, {})", $theirs, stringify!($field)),
            offset_of!(abi::$ours, $field) as u64)),+];
        std::iter::once(size).chain(offsets).collect::<Vec<Fact>>()
    }};
}

fn facts() -> Vec<Fact> {
    [layouts(), message(), constants()].concat()
}

fn layouts() -> Vec<Fact> {
    [
        layout!("UFFDIO_API", UffdioApi as "uffdio_api" { api, features, ioctls }),
        layout!("UFFDIO_API", UffdioRange as "uffdio_range" { start, len }),
        layout!("UFFDIO_REGISTER", UffdioRegister as "uffdio_register" { range, mode, ioctls }),
        layout!("UFFDIO_WRITEPROTECT", UffdioWriteprotect as "uffdio_writeprotect" { range, mode }),
        layout!("PAGEMAP_SCAN", PageRegion as "page_region" { start, end, categories }),
        layout!("PAGEMAP_SCAN", PmScanArg as "pm_scan_arg" { size, flags, start, end, walk_end, vec, vec_len, max_pages,
            category_inverted, category_mask, category_anyof_mask, return_mask }),
        layout!("PROCMAP_QUERY", ProcmapQuery as "procmap_query" { size, query_flags, query_addr, vma_start, vma_end,
            vma_flags, vma_page_size, vma_offset, inode, dev_major, dev_minor, vma_name_size, build_id_size,
            vma_name_addr, build_id_addr }),
    ]
    .concat()
}

fn message() -> Vec<Fact> {
    let fields = [
        ("event", message_offset::EVENT),
        ("arg.fork.ufd", message_offset::FORK_FD),
        ("arg.pagefault.flags", message_offset::PAGEFAULT_FLAGS),
        ("arg.pagefault.address", message_offset::PAGEFAULT_ADDRESS),
        ("arg.remap.from", message_offset::REMAP_FROM),
        ("arg.remap.to", message_offset::REMAP_TO),
        ("arg.remap.len", message_offset::REMAP_LEN),
        ("arg.remove.start", message_offset::START),
        ("arg.remove.end", message_offset::END),
    ];
    let size = ("UFFD_API", "sizeof(struct uffd_msg)".into(), abi::MESSAGE_LEN as u64);
    let offset = |(field, at)| ("UFFD_API", format!("offsetof(struct uffd_msg, {field})"), at as u64);
    std::iter::once(size).chain(fields.map(offset)).collect()
}

fn constants() -> Vec<Fact> {
    let numbers = [
        ("UFFDIO_API", abi::UFFDIO_API),
        ("UFFDIO_REGISTER", abi::UFFDIO_REGISTER),
        ("UFFDIO_UNREGISTER", abi::UFFDIO_UNREGISTER),
        ("UFFDIO_WRITEPROTECT", abi::UFFDIO_WRITEPROTECT),
        ("USERFAULTFD_IOC_NEW", abi::USERFAULTFD_IOC_NEW),
        ("PAGEMAP_SCAN", abi::PAGEMAP_SCAN),
        ("PROCMAP_QUERY", abi::PROCMAP_QUERY),
    ];
    let values = [
        ("UFFD_API", abi::UFFD_API),
        ("UFFD_API_IOCTLS", abi::UFFD_API_IOCTLS),
        ("UFFD_USER_MODE_ONLY", abi::UFFD_USER_MODE_ONLY as u64),
        ("UFFDIO_REGISTER_MODE_MISSING", abi::UFFDIO_REGISTER_MODE_MISSING),
        ("UFFDIO_REGISTER_MODE_WP", abi::UFFDIO_REGISTER_MODE_WP),
        ("UFFDIO_WRITEPROTECT_MODE_WP", abi::UFFDIO_WRITEPROTECT_MODE_WP),
        ("UFFD_EVENT_PAGEFAULT", abi::event::PAGEFAULT.into()),
        ("UFFD_EVENT_FORK", abi::event::FORK.into()),
        ("UFFD_EVENT_REMAP", abi::event::REMAP.into()),
        ("UFFD_EVENT_REMOVE", abi::event::REMOVE.into()),
        ("UFFD_EVENT_UNMAP", abi::event::UNMAP.into()),
        ("PAGE_IS_PRESENT", abi::PAGE_IS_PRESENT),
        ("PAGE_IS_FILE", abi::PAGE_IS_FILE),
        ("PAGE_IS_PFNZERO", abi::PAGE_IS_PFNZERO),
        ("PAGE_IS_HUGE", abi::PAGE_IS_HUGE),
    ];
    // The last of these are enumerators in C; they are there whenever the request is.
    let query_flags = [
        ("PROCMAP_QUERY_VMA_READABLE", abi::PROCMAP_QUERY_VMA_READABLE),
        ("PROCMAP_QUERY_VMA_WRITABLE", abi::PROCMAP_QUERY_VMA_WRITABLE),
        ("PROCMAP_QUERY_VMA_EXECUTABLE", abi::PROCMAP_QUERY_VMA_EXECUTABLE),
        ("PROCMAP_QUERY_VMA_SHARED", abi::PROCMAP_QUERY_VMA_SHARED),
        ("PROCMAP_QUERY_COVERING_OR_NEXT", abi::PROCMAP_QUERY_COVERING_OR_NEXT),
    ];
    let own = |(name, value): (&'static str, u64)| (name, name.to_owned(), value);
    let features = abi::UFFD_FEATURES.iter().map(|&(name, bit)| {
        let name: &'static str = format!("UFFD_FEATURE_{name}").leak();
        own((name, bit))
    });
    let query_flags = query_flags.map(|(name, value)| ("PROCMAP_QUERY", name.to_owned(), value));
    let numbers = numbers.map(|(name, number)| own((name, number.into())));
    numbers.into_iter().chain(values.map(own)).chain(features).chain(query_flags).collect()
}

/// A program that prints `number value` for each fact that its headers have.
fn program(facts: &[Fact]) -> String {
    let headers = ["stddef.h", "stdio.h", "linux/types.h", "sys/ioctl.h", "linux/userfaultfd.h", "linux/fs.h"];
    let mut text = headers.map(|header| format!("#include <{header}>\n")).concat();
    text.push_str("int main(void) {\n");
    for (number, (guard, expression, _)) in facts.iter().enumerate() {
        let print = format!("printf(\"{number} %llu\\n\", (unsigned long long)({expression}));");
        writeln!(text, "#ifdef {guard}\n{print}\n#endif").unwrap();
    }
    text.push_str("return 0; }\n");
    text
}

/// What the program printed: the value for each number.
fn compile_and_run(text: &str) -> Result<HashMap<usize, u64>, String> {
    let directory = std::env::temp_dir().join(format!("pagemirror-abi-{}", std::process::id()));
    fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let (source, program) = (directory.join("abi.c"), directory.join("abi"));
    let run = || {
        fs::write(&source, text).map_err(|error| error.to_string())?;
        let compiled = Command::new("cc").arg("-o").args([&program, &source]).output();
        let compiled = compiled.map_err(|error| format!("no C compiler: {error}"))?;
        if !compiled.status.success() {
            return Err(format!("it does not compile: {}", String::from_utf8_lossy(&compiled.stderr)));
        }
        let output = Command::new(&program).output().map_err(|error| error.to_string())?;
        String::from_utf8(output.stdout).map_err(|error| error.to_string())
    };
    let output = run();
    let _ = fs::remove_dir_all(&directory);
    let line = |line: &str| line.split_once(' ').and_then(|(n, value)| Some((n.parse().ok()?, value.parse().ok()?)));
    Ok(output?.lines().filter_map(line).collect())
}

#[test]
fn the_installed_headers_agree() {
    let facts = facts();
    let theirs = match compile_and_run(&program(&facts)) {
        Ok(theirs) => theirs,
        Err(why) => return skipped("the_installed_headers_agree", why),
    };
    let mut lacking = 0;
    for (number, (_, expression, ours)) in facts.iter().enumerate() {
        match theirs.get(&number) {
            Some(value) => assert_eq!(value, ours, "{expression}"),
            None => lacking += 1,
        }
    }
    if lacking > 0 {
        let why = format!("the installed headers lack {lacking} of {} facts; the others agree", facts.len());
        skipped("the_installed_headers_agree, in part", why);
    }
}
