//! The figures as a picture: both axes logarithmic, a line for each kind of history.

use crate::figures::Figures;
use std::fmt::Write;

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 240.0;
const MARGIN: f64 = 60.0;

/// One panel: what it shows, and the figure.
type Panel = (&'static str, fn(&Figures) -> f64);

const PANELS: [Panel; 6] = [
    ("open a view, p50, us", |figures| figures.open.us(50)),
    ("one page at an instant, p50, us", |figures| figures.page.us(50)),
    ("one page at an instant, p99, us", |figures| figures.page.us(99)),
    ("log of 100 versions, p50, us", |figures| figures.log.us(50)),
    ("index, bytes a version", |figures| figures.index_bytes_each),
    ("ready after kill -9, s", |figures| figures.mount_after_kill.as_secs_f64()),
];

/// The picture, as SVG.
pub fn svg(all: &[Figures]) -> String {
    let (columns, rows) = (3, PANELS.len().div_ceil(3));
    let (width, height) =
        ((WIDTH + MARGIN) * columns as f64 + MARGIN, (HEIGHT + MARGIN) * rows as f64 + MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (number, panel) in PANELS.iter().enumerate() {
        let x = MARGIN + (number % columns) as f64 * (WIDTH + MARGIN);
        let y = MARGIN / 2.0 + (number / columns) as f64 * (HEIGHT + MARGIN);
        let _ = writeln!(out, "<g transform=\"translate({x} {y})\">");
        draw(&mut out, panel, all);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, (title, figure): &Panel, all: &[Figures]) {
    let values: Vec<f64> = all.iter().map(figure).collect();
    let top = decade(values.iter().copied().fold(f64::MIN_POSITIVE, f64::max)).ceil().max(-2.0);
    let bottom = decade(values.iter().copied().fold(f64::MAX, f64::min)).floor().min(top - 1.0);
    let right = decade(all.iter().map(|figures| figures.entries as f64).fold(1.0, f64::max)).ceil();
    let left = decade(all.iter().map(|figures| figures.entries as f64).fold(f64::MAX, f64::min))
        .floor()
        .min(right - 1.0);
    let x = |entries: f64| (decade(entries) - left) / (right - left) * WIDTH;
    let y = |value: f64| HEIGHT - (decade(value) - bottom) / (top - bottom) * HEIGHT;
    let _ = writeln!(out, "<text x=\"0\" y=\"-6\" font-weight=\"bold\">{title}</text>");
    let _ = writeln!(out, "<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#999\"/>");
    for exponent in bottom as i32..=top as i32 {
        let at = y(10f64.powi(exponent));
        let _ = writeln!(
            out,
            "<path d=\"M0 {at:.1}H{WIDTH}\" stroke=\"#ddd\"/><text x=\"-6\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            at + 4.0,
            10f64.powi(exponent)
        );
    }
    for exponent in left as i32..=right as i32 {
        let at = x(10f64.powi(exponent));
        let _ = writeln!(
            out,
            "<path d=\"M{at:.1} 0V{HEIGHT}\" stroke=\"#ddd\"/><text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">1e{exponent}</text>",
            HEIGHT + 16.0
        );
    }
    for (kind, colour) in [("real", "#0b62a4"), ("generated", "#c1440e")] {
        line(
            out,
            all.iter()
                .filter(|figures| figures.kind == kind)
                .map(|figures| (x(figures.entries as f64), y(figure(figures)))),
            kind,
            colour,
        );
    }
}

fn line(out: &mut String, points: impl Iterator<Item = (f64, f64)>, kind: &str, colour: &str) {
    let points: Vec<(f64, f64)> = points.collect();
    let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        path.join(" ")
    );
    for (x, y) in &points {
        let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
    }
    if let Some((x, y)) = points.last() {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{colour}\">{kind}</text>",
            x - 6.0,
            y - 8.0
        );
    }
}

fn decade(value: f64) -> f64 {
    value.log10()
}
