//! What nginx is told: a file with the block `upstream` of the service.
//!
//! Owns the text. nginx reads it when it is reloaded; then its old processes end their
//! connections, and the new ones follow the new block.

use super::frame::Frame;
use pegasus_core::export::plan::Plan;

const WEIGHT_MAX: u32 = 100;
/// A block needs a server. This one is never asked.
const NOBODY: &str = "    server 127.0.0.1:9 down; # no provider";

/// The lines of the block.
pub fn upstream(frame: &Frame, plan: &Plan) -> Vec<String> {
    let name = frame.name();
    let mut lines = vec![format!("upstream {name} {{")];
    let method = match frame.scheduler.as_str() {
        _ if frame.by_client() => Some("hash $remote_addr consistent"),
        "round-robin" | "weighted" | "first" | "fifo" => None,
        "random-two" => Some("random two least_conn"),
        _ => Some("least_conn"),
    };
    lines.extend(method.map(|method| format!("    {method};")));
    let empty = lines.len();
    for (backend, weight) in plan.backends().iter().zip(plan.weights(WEIGHT_MAX)) {
        let Some(server) = frame.socket(backend.provider) else { continue };
        lines.push(match weight {
            0 => format!("    server {server} down;"),
            weight => format!("    server {server} weight={weight};"),
        });
    }
    if lines.len() == empty {
        lines.push(NOBODY.to_string());
    }
    lines.push("}".to_string());
    if frame.stays {
        // What reads this knows by it that the block is complete.
        lines.push(format!("# {name} is complete: reload nginx"));
    }
    lines
}
