//! The device's programs, on memory that the CPU built and goes on using.

#[path = "../../linux/tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use pagemirror_core::wait::Deadline;
use pagemirror_dmirror::kernels::{Node, Walked};
use pagemirror_dmirror::{Accelerator, Error};
use pagemirror_linux::ProcessSpace;

fn soon() -> Deadline<'static> {
    Deadline::after(Duration::from_secs(20))
}

fn device(test: &str) -> Option<Accelerator> {
    Some(Accelerator::new(Arc::new(ProcessSpace::new(support::source(test)?).unwrap())))
}

#[test]
fn sums_are_those_of_the_cpu() {
    let Some(device) = device("sums_are_those_of_the_cpu") else { return };
    let left: Vec<u32> = (0..100_003).map(|i| i * 7).collect();
    let right: Vec<u32> = (0..100_003).map(|i| u32::MAX - i).collect();
    let mut out = vec![0; left.len()];
    device.add(&left, &right, &mut out, &soon()).unwrap();
    assert!(left.iter().zip(&right).zip(&out).all(|((a, b), sum)| a.wrapping_add(*b) == *sum));
    assert_eq!(device.reduce(&out, &soon()).unwrap(), out.iter().map(|&word| u64::from(word)).sum::<u64>());
    let uneven = device.add(&left[1..], &right, &mut out, &soon());
    assert_eq!(uneven, Err(Error::Lengths { left: left.len() - 1, right: right.len() }));
}

#[test]
fn a_histogram_counts_every_byte() {
    let Some(device) = device("a_histogram_counts_every_byte") else { return };
    let bytes: Vec<u8> = (0..300_001_u32).map(|i| (i.wrapping_mul(i) >> 5) as u8).collect();
    let mut counts = [0; 256];
    bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    assert_eq!(device.histogram(&bytes, &soon()).unwrap(), counts);
}

#[test]
fn a_list_is_walked_by_the_cpu_s_own_pointers_and_again_after_the_cpu_changed_it() {
    let name = "a_list_is_walked_by_the_cpu_s_own_pointers_and_again_after_the_cpu_changed_it";
    let Some(device) = device(name) else { return };
    let build = |count: u64| (1..=count).fold(None, |next, value| Some(Box::new(Node { value, next })));
    let mut list = build(1000).unwrap();
    let walk = |list: &Node, most| device.walk(list, most, &soon()).unwrap();
    assert_eq!(walk(&list, 10_000), Walked { nodes: 1000, sum: 500_500, cut_short: false });
    assert_eq!(walk(&list, 10), Walked { nodes: 10, sum: 9955, cut_short: true });
    list.value = 0;
    list.next.as_mut().unwrap().next = build(2);
    assert_eq!(walk(&list, 10_000), Walked { nodes: 4, sum: 999 + 3, cut_short: false });
}
