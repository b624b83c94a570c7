//! The table of all schedulers and of the policies they compete with.
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

/// The law beside the policies it competes with, in all scenarios, old and new, on
/// several seeds. PEGASUS_SEEDS says how many.
#[test]
#[ignore = "prints figures; minutes"]
fn law_table() {
    let seeds = std::env::var("PEGASUS_SEEDS").map_or(1, |text| text.parse().expect("a number"));
    println!("mean/p99 in ms, good %, failed %; ratios to leastconn; seed {:#x} and on", seed());
    println!(
        "{:<5} {:>15} {:>6} {:>6} | {:>15} {:>6} {:>6} | {:>15} {:>6} | {:>13} | {:>6} {:>6}",
        "",
        "PEGASUS",
        "good",
        "failed",
        "leastconn",
        "good",
        "failed",
        "P2C",
        "failed",
        "ideal",
        "mean",
        "p99"
    );
    let (mut count, mut means, mut tails, mut worst) = (0.0, 0.0, 0.0, (0.0, ""));
    for setting in Setting::all().into_iter().chain(Setting::new_ones()).filter(wanted) {
        for seed in seed()..seed() + seeds {
            let ideal = setting.stays.is_none() && setting.misfortunes.is_empty();
            let mut lab = Lab::new(setting.clone(), seed);
            let ours = lab.figures(super::world::DEFAULT).clone();
            let theirs = lab.figures(Policy::LeastConn).clone();
            let pair = |mean: f64, tail: f64| format!("{mean:.1}/{tail:.0}");
            let p2c = lab.figures(Policy::TwoChoices).clone();
            let best = if ideal { lab.figures(Policy::Ideal).clone() } else { Default::default() };
            let shown =
                |figures: &super::figures::Figures| pair(figures.mean(), figures.quantile(0.99));
            let (mean, tail) =
                (ours.mean() / theirs.mean(), ours.quantile(0.99) / theirs.quantile(0.99));
            println!(
                "{:<5} {:>15} {:>6.2} {:>6.2} | {:>15} {:>6.2} {:>6.2} | {:>15} {:>6.2} \
                 | {:>13} | {mean:>6.3} {tail:>6.3}  {}",
                setting.name,
                shown(&ours),
                ours.good_percent(),
                ours.failed_percent(),
                shown(&theirs),
                theirs.good_percent(),
                theirs.failed_percent(),
                shown(&p2c),
                p2c.failed_percent(),
                if ideal { shown(&best) } else { "-".into() },
                setting.title,
            );
            (count, means, tails) = (count + 1.0, means + mean.ln(), tails + tail.ln());
            if mean > worst.0 {
                worst = (mean, setting.name);
            }
        }
    }
    let (mean, tail) = ((means / count).exp(), (tails / count).exp());
    println!(
        "geometric mean of all to leastconn: mean {mean:.3}, p99 {tail:.3}; worst mean {:.3} ({})",
        worst.0, worst.1
    );
}
