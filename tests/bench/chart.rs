//! Charts as SVG.
//!
//! Owns their layout and colours, for light and for dark screens. Numbers stand beside what
//! they measure, so that bars need no scale.
#![cfg(target_os = "linux")]

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
/// Colours by class, on a light and on a dark screen.
const STYLE: &str = "<style>\n\
    text{font-family:sans-serif;fill:#1c2733}.ground{fill:#fff}.note{fill:#53606e}\n\
    .ours{fill:#1b6ac9}.fed{fill:#8db8ea}.theirs{fill:#b3bac2}\n\
    .grid{stroke:#e3e7eb}.line{fill:none}\n\
    @media (prefers-color-scheme:dark){\n\
    text{fill:#e6edf3}.ground{fill:#0d1117}.note{fill:#9aa5b1}\n\
    .ours{fill:#4493f8}.fed{fill:#2c5a94}.theirs{fill:#59626c}.grid{stroke:#252c35}}\n\
    </style>\n";

/// Whose a bar or a curve is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    Ours,
    /// Another program, with weights of ours.
    Fed,
    Theirs,
}

/// A bar of a chart.
pub struct Bar {
    pub label: String,
    pub value: f64,
    pub whose: Whose,
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A number in as many digits as it is worth.
pub fn figure(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "–".into(),
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn head(height: f64, title: &str, note: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\">\n{STYLE}\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"16\" font-weight=\"bold\">{}</text>\n\
         <text x=\"12\" y=\"42\" font-size=\"12\" class=\"note\">{}</text>\n",
        escaped(title),
        escaped(note)
    )
}

/// Horizontal bars, the shortest first, with what their colours mean where there are three.
pub fn bars(title: &str, note: &str, mut bars: Vec<Bar>) -> String {
    const LEFT: f64 = 200.0;
    const ROW: f64 = 24.0;
    bars.retain(|bar| bar.value.is_finite());
    bars.sort_by(|one, other| one.value.total_cmp(&other.value));
    let most = bars.iter().map(|bar| bar.value).fold(1e-9, f64::max);
    let legend = bars.iter().any(|bar| bar.whose == Whose::Fed);
    let bottom = 58.0 + ROW * bars.len() as f64;
    let mut text = head(bottom + if legend { 28.0 } else { 4.0 }, title, note);
    let class = |whose| match whose {
        Whose::Ours => "ours",
        Whose::Fed => "fed",
        Whose::Theirs => "theirs",
    };
    for (place, bar) in bars.iter().enumerate() {
        let y = 54.0 + ROW * place as f64;
        let length = (bar.value / most * (WIDTH - LEFT - 80.0)).max(1.0);
        let weight = if bar.whose == Whose::Ours { " font-weight=\"bold\"" } else { "" };
        let _ = write!(
            text,
            "<text x=\"{}\" y=\"{}\" font-size=\"13\" text-anchor=\"end\"{weight}>{}</text>\n\
             <rect class=\"{}\" x=\"{LEFT}\" y=\"{y}\" width=\"{length:.0}\" height=\"17\"/>\n\
             <text x=\"{:.0}\" y=\"{}\" font-size=\"13\"{weight}>{}</text>\n",
            LEFT - 8.0,
            y + 13.0,
            escaped(&bar.label),
            class(bar.whose),
            LEFT + length + 6.0,
            y + 13.0,
            figure(bar.value)
        );
    }
    if legend {
        let meanings = [
            (Whose::Ours, "PEGASUS leads the clients"),
            (Whose::Fed, "another program does, told by PEGASUS"),
            (Whose::Theirs, "without PEGASUS"),
        ];
        let mut x = LEFT;
        for (whose, meaning) in meanings {
            let _ = write!(
                text,
                "<rect class=\"{}\" x=\"{x}\" y=\"{}\" width=\"11\" height=\"11\"/>\n\
                 <text x=\"{}\" y=\"{}\" font-size=\"11\" class=\"note\">{meaning}</text>\n",
                class(whose),
                bottom + 7.0,
                x + 16.0,
                bottom + 16.0
            );
            x += 34.0 + 6.0 * meaning.len() as f64;
        }
    }
    text + "</svg>\n"
}

/// A line of a chart: its values at the steps, NaN where there is none.
pub struct Curve {
    pub label: String,
    pub values: Vec<f64>,
    pub ours: bool,
    /// What cannot be reached.
    pub ideal: bool,
}

/// 1, 2 and 5 times powers of ten from one value to another.
fn ticks(least: f64, most: f64) -> Vec<f64> {
    let from = least.log10().floor() as i32;
    let all = (from..from + 8).flat_map(|power| [1.0, 2.0, 5.0].map(|one| one * 10f64.powi(power)));
    all.filter(|tick| (least..=most).contains(tick)).collect()
}

/// Curves over steps that are evenly apart; heights are logarithms. A step may have a
/// second line, after a comma.
pub fn curves(title: &str, note: &str, steps: &[String], curves: &[Curve]) -> String {
    const HEIGHT: f64 = 400.0;
    const LEFT: f64 = 70.0;
    const RIGHT: f64 = 170.0;
    const TOP: f64 = 70.0;
    const BOTTOM: f64 = 345.0;
    const ROW: f64 = 14.0;
    // Each can be told from the others, and read on light and dark ground.
    const COLOURS: [&str; 8] =
        ["#4493f8", "#d9732b", "#5f9e3f", "#a371d6", "#b8972c", "#d6518f", "#8a949e", "#2ba3a3"];
    let all = || curves.iter().flat_map(|curve| &curve.values).filter(|value| value.is_finite());
    let (most, least) = (all().copied().fold(1e-9, f64::max), all().copied().fold(1e9, f64::min));
    let range = (most / least).ln().max(1e-9);
    let x = |place: usize| {
        LEFT + (WIDTH - LEFT - RIGHT) * place as f64 / (steps.len().max(2) - 1) as f64
    };
    let y = |value: f64| BOTTOM - (BOTTOM - TOP) * (value / least).ln() / range;
    let mut text = head(HEIGHT, title, note);
    for tick in ticks(least, most) {
        let _ = write!(
            text,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{1:.0}\" y2=\"{1:.0}\"/>\n\
             <text x=\"{2}\" y=\"{3:.0}\" font-size=\"11\" text-anchor=\"end\" \
             class=\"note\">{tick}\
             </text>\n",
            WIDTH - RIGHT,
            y(tick),
            LEFT - 26.0,
            y(tick) + 4.0
        );
    }
    for (place, step) in steps.iter().enumerate() {
        for (line, words) in step.splitn(2, ", ").enumerate() {
            let _ = writeln!(
                text,
                "<text x=\"{:.0}\" y=\"{:.0}\" font-size=\"11\" text-anchor=\"middle\" \
                 class=\"note\">{}</text>",
                x(place),
                BOTTOM + 24.0 + ROW * line as f64,
                escaped(words)
            );
        }
    }
    // By height, each label a row below the one before at least.
    let last = |curve: &Curve| {
        let place = curve.values.iter().rposition(|value| value.is_finite())?;
        Some((place, curve.values[place]))
    };
    let mut ends: Vec<(usize, usize, f64)> = Vec::new();
    for (number, curve) in curves.iter().enumerate() {
        ends.extend(last(curve).map(|(place, value)| (number, place, value)));
    }
    ends.sort_by(|one, other| other.2.total_cmp(&one.2));
    let mut label = f64::MIN;
    let mut rows: Vec<f64> = Vec::new();
    for (_, _, value) in &ends {
        label = (y(*value) + 4.0).max(label + ROW);
        rows.push(label);
    }
    // What went too low moves up, with those above it.
    let mut lowest = BOTTOM + 8.0;
    for row in rows.iter_mut().rev() {
        *row = row.min(lowest);
        lowest = *row - ROW;
    }
    for ((number, place, value), row) in ends.iter().zip(rows) {
        let curve = &curves[*number];
        let colour = COLOURS[number % COLOURS.len()];
        let width = if curve.ours { 3.5 } else { 1.8 };
        let dashes = if curve.ideal { " stroke-dasharray=\"5 4\"" } else { "" };
        let weight = if curve.ours { " font-weight=\"bold\"" } else { "" };
        let points = curve.values.iter().enumerate().filter(|(_, value)| value.is_finite());
        let path: Vec<String> =
            points.map(|(place, value)| format!("{:.0},{:.0}", x(place), y(*value))).collect();
        let _ = write!(
            text,
            "<polyline class=\"line\" points=\"{}\" stroke=\"{colour}\" \
             stroke-width=\"{width}\"{dashes}/>\n\
             <text x=\"{:.0}\" y=\"{row:.0}\" font-size=\"12\"{weight} \
             style=\"fill:{colour}\">{} {}</text>\n",
            path.join(" "),
            x(*place) + 10.0,
            escaped(&curve.label),
            figure(*value)
        );
    }
    text + "</svg>\n"
}
