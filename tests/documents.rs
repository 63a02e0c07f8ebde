//! All files, links and headings that README.md and the pages of `report/` name exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// How many files the page on a write may lead its reader through.
const LONGEST_WALK: usize = 15;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// README.md, and every page below `report/`.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    let mut folders = vec![root().join("report")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the report") {
            let path = entry.expect("it is still there").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "md") {
                pages.push(path);
            }
        }
    }
    assert!(pages.len() > 15, "most pages were not found");
    pages
}

/// The targets of a page's links, except those on the web.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split_once(')'));
    let targets = targets.map(|(target, _)| target);
    targets.filter(|target| !target.contains("://")).collect()
}

/// The paths below `src/` and `tests/` that a page names.
fn named_paths(text: &str) -> Vec<&str> {
    let is_of_path = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let words = text.split(|c| !is_of_path(c));
    let words = words.map(|word| word.trim_end_matches('.'));
    let words = words.filter(|word| word.starts_with("src/") || word.starts_with("tests/"));
    words.collect()
}

/// What a page says to be in a file of code: the names that follow upon a link to it, as in
/// "[`a.rs`](../src/a.rs), `one` and `two`", and the name before one, as in "`one` in [`a.rs`](../src/a.rs)".
fn names_in_files(text: &str) -> Vec<(String, String)> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut named = Vec::new();
    let parts: Vec<&str> = text.split("](../").collect();
    for pair in parts.windows(2) {
        let Some((file, rest)) = pair[1].split_once(')').filter(|it| it.0.ends_with(".rs")) else {
            continue;
        };
        let before = pair[0].rsplit_once('[').map_or("", |(before, _)| before);
        let before = before
            .strip_suffix("` in ")
            .and_then(|it| it.rsplit_once('`'));
        if let Some((_, name)) = before {
            let last = name.rsplit("::").next().unwrap_or(name);
            named.push((file.to_owned(), last.to_owned()));
        }
        let mut rest = rest.strip_prefix(", ").unwrap_or_default();
        while let Some((name, after)) = rest.strip_prefix('`').and_then(|it| it.split_once('`')) {
            if after.starts_with(" in [") {
                break; // It belongs to the next link.
            }
            let last = name.rsplit("::").next().unwrap_or(name);
            named.push((file.to_owned(), last.to_owned()));
            let next = [", ", " and "].map(|joint| after.strip_prefix(joint));
            rest = next.into_iter().flatten().next().unwrap_or_default();
        }
    }
    named
}

/// Whether code defines a name. A name that begins with a capital may also be one that the code handles.
fn defines(code: &str, name: &str) -> bool {
    let words = [
        "fn", "struct", "enum", "trait", "const", "static", "type", "mod",
    ];
    let is_end = |after: &str| !after.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let is_after = |start: &str| code.split(start).skip(1).any(is_end);
    name.starts_with(|c: char| c.is_ascii_uppercase()) && is_after(name)
        || words.iter().any(|word| is_after(&format!("{word} {name}")))
        || code.contains(&format!(" {name}: "))
}

/// The anchors of a page: its headings, in the way of GitHub.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| -> String {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// The names in a page with this text that lead nowhere.
fn wrong_names(page: &Path, text: &str) -> Vec<String> {
    let folder = page.parent().expect("a page is in a folder");
    let mut wrong = Vec::new();
    for link in links(text) {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = if file.is_empty() {
            page.to_owned()
        } else {
            folder.join(file)
        };
        if !target.exists() {
            wrong.push(format!("{}: there is no {link}", page.display()));
        } else if !anchor.is_empty() && !anchors(&read(&target)).contains(anchor) {
            wrong.push(format!("{}: no heading for {link}", page.display()));
        }
    }
    for (file, name) in names_in_files(text) {
        let file_has_it =
            fs::read_to_string(root().join(&file)).is_ok_and(|it| defines(&it, &name));
        if !file_has_it {
            wrong.push(format!("{}: {file} has no {name}", page.display()));
        }
    }
    // A crate within the report has paths of its own.
    for path in named_paths(text) {
        if !root().join(path).exists() && !folder.join(path).exists() {
            wrong.push(format!("{}: there is no {path}", page.display()));
        }
    }
    wrong
}

#[test]
fn every_file_link_and_heading_that_a_page_names_is_there() {
    let pages = pages();
    let wrong = pages.iter().flat_map(|page| wrong_names(page, &read(page)));
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_wrong_name_is_found() {
    let page = root().join("report/register.md");
    let found = |text: &str| wrong_names(&page, text).len();
    let right = "[a](hazards.md) [b](../src/lib.rs) `tests/simulator.rs`. [c](https://x.y/z)";
    assert_eq!(found(right), 0);
    assert_eq!(found("[a](README.md#the-ring)"), 0);
    for wrong in [
        "[a](nowhere.md)",
        "[a](../src/nowhere.rs)",
        "[a](README.md#nowhere)",
        "[a](#nowhere)",
        "see `src/nowhere.rs`.",
        "cargo test, tests/nowhere.rs",
        "[`lib.rs`](../src/lib.rs), `lock` and `no_such_name`",
        "[`lib.rs`](../src/lib.rs), `loc`",
        "`no_such_name` in [`lib.rs`](../src/lib.rs)",
        // It is called there, and defined elsewhere.
        "[`chaining.rs`](../src/node/chaining.rs), `still_asks` and `is_durable`",
    ] {
        assert_eq!(found(wrong), 1, "{wrong}");
    }
}

#[test]
fn a_write_is_followed_through_few_files_each_once() {
    let text = read(&root().join("report/follow-a-write.md"));
    let list = text.lines().skip_while(|line| !line.starts_with("1. "));
    let list: Vec<&str> = list.take_while(|line| !line.is_empty()).collect();
    let mut files = BTreeSet::new();
    for (place, line) in list.iter().enumerate() {
        let begins = format!("{}. [`src/", place + 1);
        assert!(line.starts_with(&begins), "it should name one file: {line}");
        let [named] = named_paths(line)[..] else {
            panic!("it should name one file: {line}");
        };
        assert_eq!(links(line), [format!("../{named}")], "{line}");
        assert!(files.insert(named), "{named} is there twice");
    }
    assert!(
        !files.is_empty() && files.len() <= LONGEST_WALK,
        "a write passes {} files",
        files.len()
    );
}
