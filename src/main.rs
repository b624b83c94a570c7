//! The program: everything is in the library.

fn main() {
    std::process::exit(pegasus::run(Vec::new()));
}
