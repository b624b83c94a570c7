//! The program: everything is in the library.

fn main() {
    let arguments: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    std::process::exit(pegasus::command::cli::main(&arguments));
}
