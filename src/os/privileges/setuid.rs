//! `setgroups(2)`, `setgid(2)`, `setuid(2)`, for good.

use std::fs;
use std::io;

/// Whether this host has `user` or `user:group`, names or numbers.
///
/// # Errors
/// No such user or group.
pub fn check_user(wanted: &str) -> io::Result<()> {
    ids(wanted).map(drop)
}

/// The ids of `user` or `user:group`.
pub fn ids(wanted: &str) -> io::Result<(libc::uid_t, libc::gid_t)> {
    let (user, group) =
        wanted.split_once(':').map_or((wanted, None), |(user, group)| (user, Some(group)));
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let (uid, own_group) = find_user(&passwd, user).ok_or_else(|| missing("user", user))?;
    let gid = match group {
        Some(group) => find_group(&fs::read_to_string("/etc/group").unwrap_or_default(), group)
            .ok_or_else(|| missing("group", group))?,
        None => own_group.ok_or_else(|| missing("group for user", user))?,
    };
    Ok((uid, gid))
}

/// Becomes `user` or `user:group`, names or numbers, with no other group.
///
/// # Errors
/// No such user or group, or no permission.
pub fn become_user(wanted: &str) -> io::Result<()> {
    let (uid, gid) = ids(wanted)?;
    // SAFETY: plain calls.
    if unsafe { uid != 0 && libc::geteuid() == uid && libc::getegid() == gid } {
        // It was started by one that had become this user already.
        return Ok(());
    }
    // SAFETY: plain calls; the list has the one member that the count says.
    let failed = unsafe {
        libc::setgroups(1, &gid) != 0 || libc::setgid(gid) != 0 || libc::setuid(uid) != 0
    };
    if failed {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a plain call, which must fail now.
    if uid != 0 && unsafe { libc::setuid(0) } == 0 {
        return Err(io::Error::other("root could be taken back"));
    }
    Ok(())
}

fn missing(what: &str, name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no such {what}: {name}"))
}

/// The fields after the name and password of a line of `/etc/passwd` or `/etc/group`.
fn entry<'a>(file: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let line = file.lines().find(|line| line.split(':').next() == Some(name))?;
    Some(line.split(':').skip(2).collect())
}

/// The user's number, and its group's where that is known. The files are read
/// as they are: a static program must not load what the C library would.
fn find_user(passwd: &str, name: &str) -> Option<(libc::uid_t, Option<libc::gid_t>)> {
    match entry(passwd, name) {
        Some(fields) => Some((
            fields.first()?.parse().ok()?,
            fields.get(1).and_then(|group| group.parse().ok()),
        )),
        None => {
            let uid = name.parse().ok()?;
            let by_number = |line: &&str| {
                line.split(':').nth(2).and_then(|field| field.parse().ok()) == Some(uid)
            };
            let group = passwd
                .lines()
                .find(by_number)
                .and_then(|line| line.split(':').nth(3)?.parse().ok());
            Some((uid, group))
        }
    }
}

fn find_group(group: &str, name: &str) -> Option<libc::gid_t> {
    match entry(group, name) {
        Some(fields) => fields.first()?.parse().ok(),
        None => name.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_by_name_or_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:44:www:/:/bin/false\n";
        assert_eq!(find_user(passwd, "www"), Some((33, Some(44))));
        assert_eq!(find_user(passwd, "33"), Some((33, Some(44))));
        assert_eq!(
            (find_user(passwd, "65534"), find_user(passwd, "ww")),
            (Some((65534, None)), None)
        );
        assert_eq!(
            (find_group("adm:x:4:\n", "adm"), find_group("", "5"), find_group("", "x")),
            (Some(4), Some(5), None)
        );
    }
}
