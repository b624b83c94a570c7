//! Hides the stack of the first thread from the standard library.
//!
//! The standard library asks glibc at every start, so that it can tell an
//! overflow of the stack from other faults in its last words; a fault it is
//! either way. To answer, a static glibc opens and parses `/proc/self/maps`, for
//! each client that inetd starts us for, and brings `scanf` along, 85 KB.

/// Stands in for `pthread_getattr_np(3)`; the answer is the one of a system that
/// cannot tell.
#[no_mangle]
extern "C" fn pthread_getattr_np(_: libc::pthread_t, _: *mut libc::pthread_attr_t) -> libc::c_int {
    libc::ENOSYS
}
