//! A system whose services are processes like any other.

/// Runs it; the result is its exit status.
pub fn run(main: impl FnOnce() -> i32 + Send + 'static) -> i32 {
    main()
}

/// No manager to report to.
pub fn ready() {}

/// Never here.
pub fn is_managed() -> bool {
    false
}
