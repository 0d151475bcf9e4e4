//! Where the pages lead: every relative link leads to what is there, and every anchor to a heading.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::source::{report, root};

#[test]
fn every_link_of_a_page_leads_somewhere() {
    let mut pages = Vec::new();
    for folder in ["docs", "examples", "charts", "src", "tests"] {
        collect(&root().join(folder), &mut pages);
    }
    let beside = fs::read_dir(root()).expect("the checkout can be listed");
    pages.extend(
        beside
            .map(|entry| entry.expect("it can be listed").path())
            .filter(|path| is_page(path)),
    );
    let links = pages.iter().flat_map(|page| {
        let text = fs::read_to_string(page).expect("a page is readable UTF-8");
        links(&text)
            .into_iter()
            .map(|link| (page, link))
            .collect::<Vec<_>>()
    });
    let links: Vec<_> = links.filter(|(_, link)| !link.contains(':')).collect();
    assert!(
        !links.is_empty(),
        "no page has a link: the rule would hold for nothing"
    );
    report(
        "let it lead to a file of the checkout, and to a heading as GitHub spells its anchor",
        links
            .iter()
            .filter(|(page, link)| !leads_somewhere(page, link))
            .map(|(page, link)| {
                let page = page.strip_prefix(root()).unwrap_or(page);
                format!("{}: {link}", page.display())
            }),
    );
}

pub fn is_page(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}

fn collect(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the checkout") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            collect(&path, pages);
        } else if is_page(&path) {
            pages.push(path);
        }
    }
}

fn leads_somewhere(page: &Path, link: &str) -> bool {
    let (path, anchor) = link
        .split_once('#')
        .map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let target = if path.is_empty() {
        page.to_owned()
    } else {
        page.parent().unwrap_or(page).join(path)
    };
    let Some(target) = target
        .canonicalize()
        .ok()
        .filter(|target| target.starts_with(canonical_root()))
    else {
        return false;
    };
    anchor.is_none_or(|anchor| {
        let text = fs::read_to_string(&target).unwrap_or_default();
        is_page(&target) && anchors(&text).iter().any(|there| there == anchor)
    })
}

fn canonical_root() -> PathBuf {
    root().canonicalize().expect("the checkout is there")
}

/// The lines that are prose: outside of fences.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Where the links in a text lead, inside or outside of the checkout.
fn links(text: &str) -> Vec<String> {
    let line = |line: &str| {
        let code = line.split('`').enumerate();
        // What is code is none, but a link may have code for its words.
        let line: String = code
            .map(|(at, part)| if at % 2 == 0 { part } else { "" })
            .collect();
        let links = line.split("](").skip(1);
        links
            .filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()))
            .collect::<Vec<_>>()
    };
    prose(text).flat_map(line).collect()
}

/// The anchors of the headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let headings = prose(text).filter_map(|line| {
        line.trim_start_matches('#')
            .strip_prefix(' ')
            .filter(|_| line.starts_with('#'))
    });
    headings
        .map(|heading| {
            let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
            let anchor: String = heading.trim().to_lowercase().chars().filter(kept).collect();
            let anchor = anchor.replace(' ', "-");
            let earlier = seen.entry(anchor.clone()).or_default();
            *earlier += 1;
            if *earlier > 1 {
                format!("{anchor}-{}", *earlier - 1)
            } else {
                anchor
            }
        })
        .collect()
}

// The rule can fail: each of its parts, on a page made up for it.

#[test]
fn links_are_found_in_prose_alone() {
    let text = "[a](b.md), [`c`](d.md#e) `[f](g)`\n```\n[h](i)\n```\n[j](https://example.com)";
    assert_eq!(links(text), ["b.md", "d.md#e", "https://example.com"]);
}

#[test]
fn anchors_are_spelled_as_github_does() {
    let text = "# A page\n## `B`: is it?\n```\n# none\n```\n## B is it\n#hash";
    assert_eq!(anchors(text), ["a-page", "b-is-it", "b-is-it-1"]);
}

#[test]
fn a_link_leads_to_a_file_and_to_a_heading_of_it() {
    let page = root().join("docs/install.md");
    assert!(leads_somewhere(&page, "../README.md#read-on"));
    assert!(leads_somewhere(&page, "#classes"));
    assert!(!leads_somewhere(&page, "../README.md#nowhere"));
    assert!(!leads_somewhere(&page, "nowhere.md"));
    assert!(!leads_somewhere(&page, "../../"), "outside of the checkout");
}
