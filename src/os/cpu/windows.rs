//! `GetSystemTimes`, and the threads that `NtQuerySystemInformation` lists.

use super::Times;
use std::mem::{offset_of, size_of};
use windows_sys::Wdk::System::SystemInformation::{
    NtQuerySystemInformation, SystemProcessInformation,
};
use windows_sys::Win32::Foundation::{FILETIME, STATUS_INFO_LENGTH_MISMATCH};
use windows_sys::Win32::System::Threading::GetSystemTimes;
use windows_sys::Win32::System::WindowsProgramming::{
    SYSTEM_PROCESS_INFORMATION as Process, SYSTEM_THREAD_INFORMATION as Thread,
};

/// `KTHREAD_STATE`: ready, running, standby, deferred ready.
const WANT_A_CPU: [u32; 4] = [1, 2, 3, 7];
const RUNNING: u32 = 2;
/// The longest list that is read, in bytes: 100,000 threads and more.
const LIST_BYTES_MAX: u32 = 16 << 20;

fn ticks(time: FILETIME) -> u64 {
    u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime)
}

/// CPU times of this host, where the system tells.
pub fn times() -> Option<Times> {
    let none = FILETIME { dwLowDateTime: 0, dwHighDateTime: 0 };
    let mut idle = none;
    let mut kernel = none;
    let mut user = none;
    // SAFETY: the call fills the three structures it is given.
    if unsafe { GetSystemTimes(&mut idle, &mut kernel, &mut user) } == 0 {
        return None;
    }
    // The kernel's time has the idle time in it.
    let total = ticks(kernel) + ticks(user);
    Some(Times { busy: total.saturating_sub(ticks(idle)), total })
}

/// Threads that run or wait for a CPU now, this one not counted; none where the
/// states are unknown (Wine).
pub fn runnable() -> Option<u32> {
    count(&list()?)
}

/// Processes, each followed by its threads.
fn list() -> Option<Vec<u8>> {
    let mut capacity: u32 = 128 << 10;
    while capacity <= LIST_BYTES_MAX {
        let mut bytes = vec![0u8; capacity as usize];
        let mut used = 0;
        // SAFETY: the call writes at most as many bytes as its argument allows.
        let status = unsafe {
            NtQuerySystemInformation(
                SystemProcessInformation,
                bytes.as_mut_ptr().cast(),
                capacity,
                &mut used,
            )
        };
        match status {
            0 => {
                bytes.truncate(used as usize);
                return Some(bytes);
            }
            STATUS_INFO_LENGTH_MISMATCH => capacity *= 2,
            _ => return None,
        }
    }
    None
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn count(list: &[u8]) -> Option<u32> {
    let mut wanting = 0u32;
    let mut running = false;
    let mut start = 0;
    loop {
        let process = list.get(start..)?;
        let threads = number(process, offset_of!(Process, NumberOfThreads))? as usize;
        let id = number(process, offset_of!(Process, UniqueProcessId))?;
        // Process 0 has the idle threads, one for each CPU, always ready.
        for thread in (0..threads).filter(|_| id != 0) {
            let at = size_of::<Process>()
                + thread * size_of::<Thread>()
                + offset_of!(Thread, ThreadState);
            let state = number(process, at)?;
            wanting += u32::from(WANT_A_CPU.contains(&state));
            running |= state == RUNNING;
        }
        match number(process, offset_of!(Process, NextEntryOffset))? {
            0 => break,
            next => start += next as usize,
        }
    }
    // This thread runs: if none does, the states are unknown.
    running.then(|| wanting.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(bytes: &mut [u8], at: usize, number: u32) {
        bytes[at..at + 4].copy_from_slice(&number.to_ne_bytes());
    }

    /// A list of processes: number, and the states of its threads.
    fn listed(processes: &[(u32, &[u32])]) -> Vec<u8> {
        let mut list = Vec::new();
        for (index, (id, states)) in processes.iter().enumerate() {
            let mut entry = vec![0; size_of::<Process>() + states.len() * size_of::<Thread>()];
            let length = entry.len() as u32;
            put(&mut entry, offset_of!(Process, NumberOfThreads), states.len() as u32);
            put(&mut entry, offset_of!(Process, UniqueProcessId), *id);
            put(
                &mut entry,
                offset_of!(Process, NextEntryOffset),
                if index + 1 == processes.len() { 0 } else { length },
            );
            for (thread, state) in states.iter().enumerate() {
                let at = size_of::<Process>()
                    + thread * size_of::<Thread>()
                    + offset_of!(Thread, ThreadState);
                put(&mut entry, at, *state);
            }
            list.extend(entry);
        }
        list
    }

    #[test]
    fn threads_that_want_a_cpu_are_counted() {
        // Two idle threads, a waiting one, this one, and three that want a CPU.
        let list = listed(&[(0, &[2, 2]), (4, &[5, 2]), (8, &[1, 3, 7, 5])]);
        assert_eq!(count(&list), Some(3));
    }

    #[test]
    fn unknown_states_and_broken_lists_say_nothing() {
        assert_eq!(count(&listed(&[(0, &[2]), (4, &[0, 0])])), None);
        let list = listed(&[(0, &[2, 2]), (4, &[5, 2])]);
        for length in [0, 4, list.len() - size_of::<Thread>()] {
            assert_eq!(count(&list[..length]), None, "{length} bytes were read");
        }
    }

    #[test]
    fn the_layout_is_that_of_windows() {
        let (process, thread) =
            if cfg!(target_pointer_width = "64") { (256, 80) } else { (184, 64) };
        assert_eq!((size_of::<Process>(), size_of::<Thread>()), (process, thread));
    }

    #[test]
    fn the_system_tells_times() {
        assert!(times().is_some_and(|times| times.total >= times.busy));
    }
}
