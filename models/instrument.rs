//! Says which model checker a package of this folder is built for: its name ends in it.

fn main() {
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_default();
    if let Some((_, checker)) = package.rsplit_once('-') {
        println!("cargo::rustc-cfg={checker}");
    }
    println!("cargo::rerun-if-changed=../instrument.rs");
}
