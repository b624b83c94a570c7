//! The table of all schedulers and those whom they compete with.
//!
//! Owns its layout, and the one test that prints it.

use super::setting::Setting;
use super::targets::Lab;
use super::world::Policy;
use super::{seed, Replay};
use pegasus_core::scheduler::SCHEDULERS;

const BASELINES: [(&str, Policy); 6] = [
    ("(ideal central queue)", Policy::Ideal),
    ("(leastconn)", Policy::LeastConn),
    ("(P2C, own counts)", Policy::TwoChoices),
    ("(WRR, true weights)", Policy::Weighted),
    ("(round robin)", Policy::RoundRobin),
    ("(random)", Policy::Random),
];

/// Whether PEGASUS_ONLY (names with spaces between) asks for this scenario.
fn wanted(setting: &Setting) -> bool {
    std::env::var("PEGASUS_ONLY")
        .map_or(true, |only| only.split(' ').any(|name| name == setting.name))
}

#[test]
#[ignore = "prints figures; minutes in debug mode"]
fn lab_table() {
    let _replay = Replay(seed(), "lab_table");
    let mut policies: Vec<(&str, Policy)> =
        SCHEDULERS.iter().map(|entry| (entry.names[0], Policy::Pegasus(entry.names[0]))).collect();
    policies.extend(BASELINES);
    println!("response times in ms; (in brackets): not Pegasus, same arrivals; seed {:#x}", seed());
    let mut misses = Vec::new();
    for setting in Setting::all().into_iter().filter(wanted) {
        let mut lab = Lab::new(setting, seed());
        println!("\n{}: {}", lab.setting.name, lab.setting.title);
        let columns = ["mean", "p99", "p99.9", "refused %", "good %", "retried %", "lost", "over"];
        println!("  {:<22} {}", "", columns.map(|column| format!("{column:>9}")).join(" "));
        for (name, policy) in &policies {
            let figures = lab.figures(*policy);
            let values = [figures.mean(), figures.quantile(0.99), figures.quantile(0.999)]
                .map(|ms| format!("{ms:>9.1}"));
            println!(
                "  {name:<22} {} {:>9.3} {:>9.2} {:>9.3} {:>9} {:>9.2}",
                values.join(" "),
                figures.refused_percent(),
                figures.good_percent(),
                figures.retried_percent(),
                figures.lost + figures.unserved,
                figures.overshoot
            );
        }
        for verdict in lab.judge() {
            println!("    {verdict}");
            if !verdict.holds() {
                misses.push(format!("{}: {verdict}", lab.setting.name));
            }
        }
    }
    println!("\n{} targets missed\n{}", misses.len(), misses.join("\n"));
}
