//! The console of Windows. Its modes are those of all programs in it, so they are put back.

use std::sync::OnceLock;
use windows_sys::Win32::System::Console::{
    GetConsoleMode, GetStdHandle, SetConsoleCtrlHandler, SetConsoleMode, CONSOLE_MODE,
    ENABLE_ECHO_INPUT, ENABLE_LINE_INPUT, ENABLE_PROCESSED_INPUT,
    ENABLE_VIRTUAL_TERMINAL_PROCESSING, STD_HANDLE, STD_INPUT_HANDLE, STD_OUTPUT_HANDLE,
};

/// How input and output were.
static BEFORE: OnceLock<[CONSOLE_MODE; 2]> = OnceLock::new();

fn mode(stream: STD_HANDLE) -> Option<CONSOLE_MODE> {
    let mut mode = 0;
    // SAFETY: the handle belongs to this process, and the call fills in the number.
    (unsafe { GetConsoleMode(GetStdHandle(stream), &raw mut mode) } != 0).then_some(mode)
}

fn set_mode(stream: STD_HANDLE, mode: CONSOLE_MODE) -> bool {
    // SAFETY: the handle belongs to this process.
    unsafe { SetConsoleMode(GetStdHandle(stream), mode) != 0 }
}

pub(super) fn start() -> bool {
    let (Some(input), Some(output)) = (mode(STD_INPUT_HANDLE), mode(STD_OUTPUT_HANDLE)) else {
        return false;
    };
    if BEFORE.set([input, output]).is_ok() {
        // SAFETY: the handler is a function that lives as long as the process.
        unsafe { SetConsoleCtrlHandler(Some(on_event), 1) };
    }
    let raw = input & !(ENABLE_LINE_INPUT | ENABLE_ECHO_INPUT | ENABLE_PROCESSED_INPUT);
    // Before Windows 10 there are no control sequences: then keys come by lines.
    set_mode(STD_OUTPUT_HANDLE, output | ENABLE_VIRTUAL_TERMINAL_PROCESSING)
        && set_mode(STD_INPUT_HANDLE, raw)
}

pub(super) fn restore() {
    if let Some([input, output]) = BEFORE.get() {
        set_mode(STD_INPUT_HANDLE, *input);
        set_mode(STD_OUTPUT_HANDLE, *output);
    }
}

unsafe extern "system" fn on_event(_: u32) -> i32 {
    restore();
    // The next handler is that of the system, which ends the process.
    0
}
