//! Names the mechanisms of the target (one `cfg` each) and stamps the version.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let os = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let target_env = env::var("CARGO_CFG_TARGET_ENV").unwrap_or_default();

    // Where the load average comes from.
    let load = match (os.as_str(), target_env.as_str()) {
        ("linux", "uclibc") => "procfs",
        ("android", _) => "sysinfo",
        ("windows", _) => "sampled",
        (
            "linux" | "macos" | "freebsd" | "openbsd" | "netbsd" | "dragonfly" | "illumos"
            | "solaris",
            _,
        ) => "getloadavg",
        _ => "none",
    };
    // Where CPU utilisation and run queue come from.
    let cpu = match os.as_str() {
        "linux" | "android" => "procfs",
        "windows" => "windows",
        _ => "none",
    };
    for (name, value, values) in [
        ("pegasus_load", load, r#""getloadavg", "procfs", "sysinfo", "sampled", "none""#),
        ("pegasus_cpu", cpu, r#""procfs", "windows", "none""#),
    ] {
        println!("cargo::rustc-check-cfg=cfg({name}, values({values}))");
        println!("cargo::rustc-cfg={name}=\"{value}\"");
        println!("cargo::rustc-env={}={value}", name.to_uppercase());
    }
    // The kernel of Linux, under whichever C library.
    println!("cargo::rustc-check-cfg=cfg(pegasus_linux)");
    if matches!(os.as_str(), "linux" | "android") {
        println!("cargo::rustc-cfg=pegasus_linux");
    }
    println!("cargo::rustc-env=PEGASUS_TARGET={}", env::var("TARGET").unwrap_or_default());
}
