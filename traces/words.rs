//! What the compiler of `compiler.trace` compiled: the most frequent words of a text, with much that is generic.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::io::Read;

fn main() -> std::io::Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let mut seen: HashMap<String, usize> = HashMap::new();
    for word in text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()) {
        *seen.entry(word.to_lowercase()).or_default() += 1;
    }
    let mut by_count: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for (word, times) in &seen {
        by_count.entry(*times).or_default().insert(word.clone());
    }
    let mut lengths: BinaryHeap<Reverse<(usize, &str)>> = seen.keys().map(|word| Reverse((word.len(), &**word))).collect();
    let shortest = std::iter::from_fn(|| lengths.pop()).take(3).map(|Reverse((_, word))| word.to_owned());
    let mut shown: Vec<String> = shortest.collect();
    let frequent = by_count.iter().rev().flat_map(|(times, words)| words.iter().map(move |word| (times, word)));
    shown.extend(frequent.take(20).map(|(times, word)| format!("{times:>8} {word:?}")));
    shown.sort_by_key(|line| Reverse(line.len()));
    let joined = std::thread::spawn(move || shown.join("\n")).join().unwrap_or_default();
    println!("{joined}");
    Ok(())
}
