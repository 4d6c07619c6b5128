//! The ratios as a picture: one bar for each measure, drawn without any library.

use std::fmt::Write;

/// A bar: its name, and how many times as much we reach.
pub(crate) type Bar = (String, f64);

/// Height of a row and widths of the columns, in pixels.
const ROW: usize = 22;
const NAMES: usize = 270;
const BARS: usize = 420;
const MARGIN: usize = 40;

/// Draws bars on a logarithmic scale from 1/16 to 16, with a line at 1.
pub(crate) fn svg(title: &str, bars: &[Bar]) -> String {
    let (width, height) = (NAMES + BARS + 2 * MARGIN, (bars.len() + 2) * ROW + MARGIN);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"{ROW}\" font-size=\"14\">{title}</text>\n"
    );
    let bottom = height - MARGIN / 2;
    for power in -4..=4 {
        let ratio = 2_f64.powi(power);
        let (x, colour) = (position(ratio), if power == 0 { "black" } else { "lightgray" });
        let label = if power < 0 { format!("1/{}", 1 << -power) } else { ratio.to_string() };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "<line x1=\"{x:.0}\" x2=\"{x:.0}\" y1=\"{ROW}\" y2=\"{bottom}\" stroke=\"{colour}\"/>\n\
             <text x=\"{x:.0}\" y=\"{height}\" text-anchor=\"middle\">{label}</text>"
        );
    }
    for (row, (name, ratio)) in bars.iter().enumerate() {
        let y = (row + 2) * ROW;
        let (one, end) = (position(1.0), position(*ratio));
        let (left, length) = (one.min(end), (one - end).abs());
        let colour = if *ratio >= 1.0 { "#3a7d44" } else { "#b5482f" };
        let (name_end, bar_top) = (NAMES, y - ROW / 2 - 3);
        let _ = writeln!(
            text,
            "<text x=\"{name_end}\" y=\"{y}\" text-anchor=\"end\">{name}</text>\n\
             <rect x=\"{left:.0}\" y=\"{bar_top}\" width=\"{length:.0}\" height=\"14\" fill=\"{colour}\"/>\n\
             <text x=\"{:.0}\" y=\"{y}\">{ratio:.2}</text>",
            one.max(end) + 4.0
        );
    }
    text.push_str("</svg>\n");
    text
}

/// Where a ratio is, in pixels from the left.
fn position(ratio: f64) -> f64 {
    let part = (ratio.clamp(1.0 / 16.0, 16.0).log2() + 4.0) / 8.0;
    (NAMES + MARGIN / 2) as f64 + part * BARS as f64
}
