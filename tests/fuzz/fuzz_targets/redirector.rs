#![no_main]

#[path = "../../hostile/bytes.rs"]
mod bytes;
#[path = "../../hostile/redirector.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
