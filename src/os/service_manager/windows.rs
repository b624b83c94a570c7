//! Services of Windows: the service control manager starts the program, and
//! tells it by a call when to end (`sc stop`, or the host goes down) and when
//! to read its configuration again (`sc control NAME paramchange`).

use crate::os::signal::{self, Signal};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
use std::sync::Mutex;
use windows_sys::core::PWSTR;
use windows_sys::Win32::Foundation::{ERROR_CALL_NOT_IMPLEMENTED, ERROR_SERVICE_SPECIFIC_ERROR};
use windows_sys::Win32::System::Console::{GetStdHandle, STD_ERROR_HANDLE};
use windows_sys::Win32::System::RemoteDesktop::ProcessIdToSessionId;
use windows_sys::Win32::System::Services as scm;
use windows_sys::Win32::System::Threading::GetCurrentProcessId;

/// How long the manager shall wait for an end in good order, in milliseconds.
const DRAIN_HINT: u32 = 120_000;
/// How long it may take to start, in milliseconds: names are looked up.
const START_HINT: u32 = 30_000;
/// In a process of its own, a service's name is not looked at.
static NAME: [u16; 1] = [0];

type Main = Box<dyn FnOnce() -> i32 + Send>;
static MAIN: Mutex<Option<Main>> = Mutex::new(None);
/// The manager's name for this service; null before it started it.
static HANDLE: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
static EXIT: AtomicI32 = AtomicI32::new(0);

fn tell(state: u32, exit: i32) {
    let running = state == scm::SERVICE_RUNNING;
    let accepted =
        scm::SERVICE_ACCEPT_STOP | scm::SERVICE_ACCEPT_SHUTDOWN | scm::SERVICE_ACCEPT_PARAMCHANGE;
    let status = scm::SERVICE_STATUS {
        dwServiceType: scm::SERVICE_WIN32_OWN_PROCESS,
        dwCurrentState: state,
        dwControlsAccepted: if running { accepted } else { 0 },
        dwWin32ExitCode: if exit == 0 { 0 } else { ERROR_SERVICE_SPECIFIC_ERROR },
        dwServiceSpecificExitCode: exit as u32,
        dwCheckPoint: 0,
        dwWaitHint: match state {
            scm::SERVICE_START_PENDING => START_HINT,
            scm::SERVICE_STOP_PENDING => DRAIN_HINT,
            _ => 0,
        },
    };
    // SAFETY: the handle is the manager's; the structure lives for the call.
    unsafe { scm::SetServiceStatus(HANDLE.load(Ordering::SeqCst), &status) };
}

unsafe extern "system" fn handle(control: u32, _: u32, _: *mut c_void, _: *mut c_void) -> u32 {
    match control {
        scm::SERVICE_CONTROL_STOP | scm::SERVICE_CONTROL_SHUTDOWN => {
            tell(scm::SERVICE_STOP_PENDING, 0);
            signal::raise(Signal::Terminate);
        }
        scm::SERVICE_CONTROL_PARAMCHANGE => signal::raise(Signal::Reload),
        scm::SERVICE_CONTROL_INTERROGATE => {}
        _ => return ERROR_CALL_NOT_IMPLEMENTED,
    }
    0
}

/// The manager calls it, on a thread of its own.
unsafe extern "system" fn start(_: u32, _: *mut PWSTR) {
    // SAFETY: the name and the handler live as long as the process.
    let name =
        unsafe { scm::RegisterServiceCtrlHandlerExW(NAME.as_ptr(), Some(handle), ptr::null()) };
    HANDLE.store(name, Ordering::SeqCst);
    // Who asks for a start and hears nothing better would call a service that
    // stops for its configuration well started.
    tell(scm::SERVICE_START_PENDING, 0);
    let exit = take().map_or(0, |main| main());
    EXIT.store(exit, Ordering::SeqCst);
    tell(scm::SERVICE_STOPPED, exit);
}

/// Whether the manager started this process. Its standard error has no reader then.
pub fn is_managed() -> bool {
    !HANDLE.load(Ordering::SeqCst).is_null()
}

/// Tells the manager, if it started this process, that the service runs.
pub fn ready() {
    if is_managed() {
        tell(scm::SERVICE_RUNNING, 0);
    }
}

fn take() -> Option<Main> {
    MAIN.lock().ok()?.take()
}

/// Whether the manager may have started this process: in session 0, or, under
/// Wine, without a reader of standard error. Other processes do not ask the manager:
/// its answer may take ten seconds.
fn may_be_managed() -> bool {
    let mut session = 0;
    // SAFETY: the first call writes the number it is given, the other one takes
    // a constant; neither keeps anything.
    unsafe {
        ProcessIdToSessionId(GetCurrentProcessId(), &mut session) == 0
            || session == 0
            || GetStdHandle(STD_ERROR_HANDLE).is_null()
    }
}

/// Runs it, as a service if the manager started this process; the result is its
/// exit status.
pub fn run(main: impl FnOnce() -> i32 + Send + 'static) -> i32 {
    if !may_be_managed() {
        return main();
    }
    if let Ok(mut kept) = MAIN.lock() {
        *kept = Some(Box::new(main));
    }
    let entry = scm::SERVICE_TABLE_ENTRYW {
        lpServiceName: NAME.as_ptr().cast_mut(),
        lpServiceProc: Some(start),
    };
    let table = [entry, scm::SERVICE_TABLE_ENTRYW::default()];
    // It returns when the service has stopped, or at once where no manager started this
    // process. Then the work is still to be run.
    // SAFETY: the table ends with an empty entry, and lives for the call.
    unsafe { scm::StartServiceCtrlDispatcherW(table.as_ptr()) };
    take().map_or_else(|| EXIT.load(Ordering::SeqCst), |main| main())
}
