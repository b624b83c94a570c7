use super::*;

const A: &str = "8c1f2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7e0";
const B: &str = "0001020304050607080910111213141516171819202122232425262728293031";

fn key(value: &str) -> PeerKey {
    PeerKey::parse("web3".parse().unwrap(), value).unwrap()
}

fn may(key: &PeerKey, message: &str, from: &str) -> bool {
    let request = Request::parse(format!("pegasus://b/{message}").as_bytes()).unwrap();
    key.authorize(&request, from.parse().unwrap()).is_ok()
}

#[test]
fn a_file_reads_and_a_line_prints_alike() {
    let text = format!(
        "# keys\nweb3=\"provider {A} addr=10.0.3.0/29,::1 service=web,my-app\"\n\n\
         lb1='balancer {B}'\n"
    );
    let table = KeyTable::parse(&text).unwrap();
    let lines: Vec<String> = table.iter().map(|key| key.line(true)).collect();
    assert_eq!(lines[0], text.lines().nth(1).unwrap());
    assert_eq!(table.iter().next().unwrap().line(false), format!("web3=\"provider {A}\""));
    assert_eq!(table.first_of(&[KeyRole::Balancer]).unwrap().name.as_str(), "lb1");
    assert!(table.first_of(&[KeyRole::Observer, KeyRole::Operator]).is_none());
    assert!(!format!("{table:?}").contains("8c1f"), "a secret is never shown");
}

#[test]
fn every_mistake_names_its_line_and_no_secret() {
    for (line, expected) in [
        (format!("web3=\"{A}\""), "not a role"),
        ("web3=provider".into(), "the secret is missing"),
        (format!("web3=\"provider {}\"", &A[1..]), "63 characters instead of 64"),
        (format!("web3=\"provider {}g\"", &A[1..]), "other characters"),
        (format!("web3=\"provider {}\"", "0".repeat(64)), "one digit repeated"),
        (format!("web3=\"provider {A} addr=10.0.3.0/33\""), "not a network"),
        (format!("web3=\"provider {A} addr=\""), "not a network"),
        (format!("web3=\"provider {A} service=we:b\""), "not a service name"),
        (format!("web3=\"provider {A} {B}\""), "more words after the secret"),
        (format!("web3=provider {A}"), "not a key"),
        (A.to_string(), "not a key"),
        (format!("7web=\"provider {A}\""), "not a key"),
    ] {
        let errors = KeyTable::parse(&format!("\n{line}\n")).unwrap_err();
        assert_eq!((errors.len(), errors[0].0), (1, 2), "{line}");
        assert!(errors[0].1.contains(expected), "{line}: {}", errors[0].1);
        assert!(!errors[0].1.contains(&A[1..20]), "{}", errors[0].1);
    }
}

#[test]
fn a_name_may_have_several_secrets_of_one_role() {
    let both = format!("web3=\"provider {A}\"\nweb3=\"provider {B} service=web\"\n");
    let table = KeyTable::parse(&both).unwrap();
    assert_eq!((table.named("web3".parse().unwrap()).count(), table.secrets_max()), (2, 2));
    let old = key(&format!("provider {A}"));
    assert!(table.successor_of(&old).is_some());
    let later = KeyTable::parse(both.lines().nth(1).unwrap()).unwrap();
    assert!(later.successor_of(&old).is_none());
    for (second, why) in [
        (format!("web3=\"balancer {B}\""), "same role"),
        (format!("web4=\"provider {A}\""), "same secret"),
    ] {
        let errors = KeyTable::parse(&format!("web3=\"provider {A}\"\n{second}\n")).unwrap_err();
        assert!(errors[0].0 == 2 && errors[0].1.contains(why), "{errors:?}");
    }
}

#[test]
fn each_role_may_send_its_own_messages_only() {
    let messages = [
        "ticket?tickets=1&capacity=1",
        "withdraw",
        "next",
        "failure?provider=10.0.0.1",
        "done?id=1",
        "status",
    ];
    for (role, allowed) in [
        ("provider", &messages[..2]),
        ("balancer", &messages[2..5]),
        ("observer", &messages[5..]),
        ("operator", &messages[5..]),
    ] {
        let key = key(&format!("{role} {A}"));
        for message in messages {
            assert_eq!(
                may(&key, message, "10.0.0.1"),
                allowed.contains(&message),
                "{role} {message}"
            );
        }
    }
}

#[test]
fn a_key_is_bound_to_addresses_and_services() {
    let ticket = |provider: &str| format!("ticket?provider={provider}&tickets=1&capacity=1");
    let bound = key(&format!("provider {A} addr=10.0.3.0/29"));
    assert!(may(&bound, &ticket("10.0.3.1:80"), "192.168.0.1"), "behind NAT");
    assert!(!may(&bound, &ticket("10.0.9.1:80"), "10.0.3.1"));
    assert!(!may(&bound, &ticket("10.0.9.1:80"), "127.0.0.1"), "loopback is no exception");
    assert!(!may(&bound, &ticket(":80"), "10.0.9.1"));
    let free = key(&format!("provider {A}"));
    assert!(may(&free, &ticket(":80"), "10.0.9.1"));
    assert!(!may(&free, &ticket("10.0.9.1:80"), "10.0.9.2"));
    let web = key(&format!("observer {A} service=web addr=10.0.0.0/8"));
    assert!(may(&web, "status?service=web", "10.0.0.1"));
    assert!(!may(&web, "status?service=mail", "10.0.0.1") && !may(&web, "status", "10.0.0.1"));
    assert!(!may(&web, "status?service=web", "192.168.0.1"));
    assert!(!may(&key(&format!("balancer {A} service=web")), "next?service=mail", "10.0.0.1"));
}
