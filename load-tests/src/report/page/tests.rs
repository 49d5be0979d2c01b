//! The page holds what was found, and nothing that a text in it would make of it.

use super::*;
use crate::findings::{Axis, Figure, Line};

const HOSTILE: &str = "<script>alert(\"1\")</script>&'";

fn axis(label: &str, is_logarithmic: bool) -> Axis {
    Axis { label: label.into(), is_logarithmic }
}

fn figure_of(of: &str, name: &str, value: f64, unit: &str) -> Figure {
    Figure { of: of.into(), name: name.into(), value, unit: unit.into() }
}

/// A run of one scenario.
fn run(findings: Findings, failure: Option<&str>) -> Results {
    let mut results = Results::begin("short", Some("abc".into()));
    results.add(Entry { findings, failure: failure.map(str::to_owned), seconds: 1.0 });
    results
}

/// What an XML reader would stumble over in the page's plots: every `<` opens or closes a tag that plots
/// have.
fn tags(page: &str) -> Vec<String> {
    let names = page
        .split('<')
        .skip(1)
        .map(|rest| rest.trim_start_matches('/').chars().take_while(char::is_ascii_alphanumeric).collect::<String>());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn hostile_text_stays_text() {
    let text = || HOSTILE.to_owned();
    let line = Line { name: text(), points: vec![(1.0, 2.0), (2.0, 3.0)] };
    let findings = Findings {
        scenario: text(),
        question: text(),
        setup: vec![(text(), text())],
        figures: vec![
            figure_of(HOSTILE, HOSTILE, 1.0, HOSTILE),
            figure_of(HOSTILE, "a: <script>", 1.0, HOSTILE),
            figure_of(HOSTILE, "a: </style>", 2.0, HOSTILE),
        ],
        plots: vec![Plot { title: text(), x: axis(HOSTILE, false), y: axis(HOSTILE, true), lines: vec![line] }],
        breaches: vec![text()],
    };
    let mut results = run(findings, Some(HOSTILE));
    results.commit = Some(text());
    results.machine.cpu = text();
    let page = html(&results, &[Results { form: text(), ..results.clone() }]);
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;"), "{page}");
    assert!(page.matches("</style>").count() == 1, "{page}");
    assert_eq!(page.matches("<svg").count(), 2, "lines and bars");
    // Nothing but what the page and its plots are made of; `!DOCTYPE` has no name here.
    let known = [
        "",
        "a",
        "b",
        "body",
        "br",
        "circle",
        "dd",
        "div",
        "dl",
        "dt",
        "figcaption",
        "figure",
        "footer",
        "h1",
        "h2",
        "head",
        "header",
        "html",
        "li",
        "line",
        "main",
        "meta",
        "ol",
        "p",
        "polyline",
        "rect",
        "section",
        "small",
        "span",
        "strong",
        "style",
        "svg",
        "table",
        "tbody",
        "td",
        "text",
        "th",
        "thead",
        "title",
        "tr",
        "ul",
    ];
    let strange: Vec<String> = tags(&page).into_iter().filter(|tag| !known.contains(&tag.as_str())).collect();
    assert_eq!(strange, Vec::<String>::new());
}

#[test]
fn page_fetches_nothing() {
    let line = Line { name: "a".into(), points: vec![(1.0, 1.0)] };
    let plots = vec![Plot { title: "t".into(), lines: vec![line], ..Plot::default() }];
    let page = html(&run(Findings { plots, ..Findings::default() }, None), &[]);
    let page = page.replace("http://www.w3.org/2000/svg", ""); // a name, not a place
    for word in ["http", "src=", "@import", "url(", "<link", "<script"] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn empty_plot_is_said_to_be_empty() {
    let plots = vec![
        Plot { title: "no lines".into(), ..Plot::default() },
        Plot { title: "no points".into(), lines: vec![Line::default()], ..Plot::default() },
    ];
    let figures = vec![figure_of("a", "bars: x", 0.0, "ms"), figure_of("a", "bars: y", 0.0, "ms")];
    let page = html(&run(Findings { figures, plots, ..Findings::default() }, None), &[]);
    assert_eq!(page.matches("There is nothing to draw.").count(), 3, "{page}");
    assert!(!page.contains("<svg"), "{page}");
}

#[test]
fn logarithmic_axis_leaves_zeros_out() {
    let lines = [Line { name: "a".into(), points: vec![(0.0, 5.0), (1.0, 0.0), (10.0, 20.0), (100.0, -3.0)] }];
    let plot = |points: &[(f64, f64)]| {
        let lines = vec![Line { points: points.to_vec(), ..lines[0].clone() }];
        Plot { title: "t".into(), x: axis("x", true), y: axis("y", true), lines }
    };
    let svg = lines::draw(&plot(&lines[0].points), &[], &["a"]).expect("drawn").expect("a point");
    assert_eq!(svg.matches("<circle").count(), 1, "{svg}");
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    assert!(lines::draw(&plot(&[(0.0, 0.0), (1.0, 0.0)]), &[], &[]).expect("drawn").is_none());
}

#[test]
fn earlier_figures_stand_beside_those_of_now() {
    let now = Findings {
        scenario: "s".into(),
        setup: vec![("rounds".into(), "3".into())],
        figures: vec![figure_of("a", "rate", 110.0, "1/s"), figure_of("b", "rate", 7.0, "1/s")],
        plots: vec![Plot {
            title: "t".into(),
            lines: vec![Line { name: "a".into(), points: vec![(1.0, 1.0), (2.0, 2.0)] }],
            ..Plot::default()
        }],
        ..Findings::default()
    };
    let mut before = now.clone();
    before.figures.pop();
    before.figures[0].value = 100.0;
    before.setup[0].1 = "1".into();
    let results = run(now.clone(), None);
    let page = html(&results, &[run(before.clone(), None)]);
    assert!(page.contains("earlier 100 (+10%)") && page.contains("earlier –"), "{page}");
    assert!(page.contains("earlier: 1") && page.contains("opacity=\"0.35\""), "{page}");
    assert!(!page.contains("another machine"), "{page}");
    // One of another machine, and one that has no such scenario at all.
    let mut other = run(before, Some("it failed"));
    other.machine.cores += 1;
    let page = html(&results, &[other, Results::begin("full", None)]);
    assert!(page.contains("1: 100 (+10%)") && page.contains("2: –"), "{page}");
    assert!(page.contains("on another machine") && page.contains("the full one"), "{page}");
}

#[test]
fn parts_of_one_unit_are_stacked() {
    let figures = vec![
        figure_of("a", "CPU: own", 3.0, "us"),
        figure_of("a", "CPU: Kafka", 2.0, "us"),
        figure_of("b", "CPU: own", 1.0, "us"),
        figure_of("a", "Postgres: rows", 1.0, "rows"),
        figure_of("a", "Postgres: WAL", 700.0, "bytes"),
        figure_of("a", "plain", 1.0, "us"),
    ];
    let findings = Findings { figures, ..Findings::default() };
    let bars = Bars::of(&findings);
    let titles: Vec<(&str, usize)> = bars.iter().map(|bars| (bars.title.as_str(), bars.parts.len())).collect();
    assert_eq!(titles, [("CPU", 2), ("Postgres: rows", 1), ("Postgres: WAL", 1)]);
    let svg = bars[0].draw(&findings, &[&findings]).expect("drawn").expect("bars");
    // Two bars of two parts, and the same faintly.
    assert_eq!(svg.matches("<rect").count(), 8, "{svg}");
    assert!(svg.contains(">\n5\n<") || svg.contains(">5<"), "the sum: {svg}");
}

#[test]
fn failed_scenario_says_why_beside_sound_ones() {
    let mut results = run(Findings { scenario: "one".into(), ..Findings::default() }, Some("no broker"));
    let breaches = vec!["lost: 3".to_owned()];
    let two = Findings { scenario: "two".into(), breaches, ..Findings::default() };
    results.add(Entry { findings: two, ..Entry::default() });
    results.add(Entry::default());
    let page = html(&results, &[]);
    for text in ["failed", "no broker", "1 broken", "lost: 3", "kept"] {
        assert!(page.contains(text), "{text} in {page}");
    }
}
