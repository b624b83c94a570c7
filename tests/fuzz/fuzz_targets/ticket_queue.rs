#![no_main]

#[path = "../../hostile/bytes.rs"]
mod bytes;
#[path = "../../hostile/ticket_queue.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
