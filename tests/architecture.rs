//! The layers of `src/`: imports point one way, and the code that decides touches nothing outside itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module under `src/`, and the other modules of this crate that it may use. The list goes from the lowest
/// layer to the highest: a module uses only modules that stand before it here.
const LAYERS: &[(&str, &[&str])] = &[
    ("sync", &[]),
    ("testing", &[]),
    ("error", &[]),
    ("bytes", &[]),
    ("logging", &["lock", "wait"]),
    ("protocol", &["testing", "bytes", "error"]),
    ("client", &["error", "bytes", "protocol"]),
    ("config", &["protocol"]),
    (
        "storage",
        &["lock", "wait", "sync", "testing", "bytes", "protocol"],
    ),
    (
        "transport",
        &[
            "lock", "wait", "sync", "logging", "bytes", "protocol", "storage",
        ],
    ),
    (
        "node",
        &[
            "lock",
            "wait_for",
            "testing",
            "error",
            "logging",
            "bytes",
            "protocol",
            "config",
            "storage",
            "transport",
        ],
    ),
    (
        "server",
        &[
            "lock",
            "wait",
            "sync",
            "error",
            "logging",
            "bytes",
            "protocol",
            "config",
            "storage",
            "transport",
            "node",
        ],
    ),
    (
        "cli",
        &[
            "lock",
            "testing",
            "error",
            "logging",
            "bytes",
            "client",
            "protocol",
            "config",
            "storage",
            "transport",
            "node",
            "server",
        ],
    ),
    ("lib", &[]),
    ("main", &["cli", "logging"]),
];

/// The code that decides about votes. Time and chance are its arguments, so the simulator runs it as it is.
const PURE: &[&str] = &["protocol/", "transport/suspicion.rs"];

/// What the code in [`PURE`] must not mention.
const WORLD: &[&str] = &[
    "std::net",
    "std::thread",
    "std::fs",
    "Instant",
    "SystemTime",
    "fastrand",
    "log::",
];

/// The most lines that a file may have before its tests, comments included.
const LONGEST_FILE: usize = 400;

struct Source {
    /// Below `src/`.
    name: String,
    /// Without comments, and without what is compiled for tests only.
    lines: Vec<String>,
}

impl Source {
    fn read(root: &Path, path: &Path) -> Source {
        let text = fs::read_to_string(path).expect("a source file is text");
        let name = path.strip_prefix(root).expect("it was found there");
        let mut lines: Vec<String> = text.lines().map(without_comment).collect();
        blank_out_tests(&mut lines);
        Source {
            name: name.to_string_lossy().into_owned(),
            lines,
        }
    }

    /// The module right below the crate's root that the file belongs to.
    fn module(&self) -> &str {
        let first = self.name.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// A line of code, and if it opens a group of imports the lines up to its end.
    fn statement(&self, line: usize) -> String {
        let opens = self.lines[line].trim_end().ends_with("::{");
        let lines = self.lines[line..].iter().map(|line| line.trim());
        let more = lines
            .clone()
            .position(|line| line.ends_with(';'))
            .filter(|_| opens);
        lines.take(more.unwrap_or(0) + 1).collect()
    }

    fn place(&self, line: usize) -> String {
        format!("src/{}:{}", self.name, line + 1)
    }
}

fn without_comment(line: &str) -> String {
    line.split("//").next().unwrap_or_default().to_owned()
}

/// Blanks each item under `#[cfg(test)]`, up to the line that ends it at the same depth.
fn blank_out_tests(lines: &mut [String]) {
    let mut inside: Option<String> = None;
    for line in lines {
        let indent: String = line.chars().take_while(|c| *c == ' ').collect();
        let ends = |start: &String| indent == *start && (line.trim() == "}" || line.ends_with(';'));
        if inside.is_none() && line.trim() == "#[cfg(test)]" {
            inside = Some(indent);
            line.clear();
        } else if let Some(start) = &inside {
            if ends(start) {
                inside = None;
            }
            line.clear();
        }
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the sources") {
            let path = entry.expect("it is still there").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let sources: Vec<_> = files.iter().map(|path| Source::read(&root, path)).collect();
    assert!(sources.len() > 30, "most of the sources were not found");
    sources
}

/// The modules that a line of code names behind `prefix`, as in `crate::protocol::ring::Ring` or in
/// `crate::{lock, net::Lines}`.
fn named_behind<'a>(prefix: &str, line: &'a str) -> Vec<&'a str> {
    let mut named = Vec::new();
    for (place, _) in line.match_indices(prefix) {
        let before = line[..place].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &line[place + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => named.extend(top_of_group(group)),
            None => named.push(identifier(rest)),
        }
    }
    named
}

fn top_of_group(group: &str) -> Vec<&str> {
    let mut depth = 0;
    let mut starts = vec![0];
    for (place, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => starts.push(place + 1),
            _ => {}
        }
    }
    let names = starts
        .iter()
        .map(|start| identifier(group[*start..].trim_start()));
    names.filter(|name| !name.is_empty()).collect()
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

fn report(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}\n{}", broken.join("\n"));
}

#[test]
fn imports_point_one_way() {
    let layers: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    let mut broken = Vec::new();
    for source in sources() {
        let module = source.module();
        let Some(allowed) = layers.get(module) else {
            broken.push(format!(
                "src/{}: {module} has no place in LAYERS",
                source.name
            ));
            continue;
        };
        // To the program, the library is another crate.
        let prefix = if module == "main" {
            "simple_dynamo::"
        } else {
            "crate::"
        };
        for number in 0..source.lines.len() {
            for used in named_behind(prefix, &source.statement(number)) {
                if used != module && !allowed.contains(&used) {
                    let place = source.place(number);
                    broken.push(format!("{place}: {module} may not use {used}"));
                }
            }
        }
    }
    report(
        &broken,
        "LAYERS in tests/architecture.rs says which module may use which:",
    );
}

#[test]
fn the_layers_stand_in_order_and_all_exist() {
    let names: Vec<_> = LAYERS.iter().map(|(name, _)| *name).collect();
    let sources = sources();
    for (place, (name, allowed)) in LAYERS.iter().enumerate() {
        assert!(
            sources.iter().any(|source| source.module() == *name),
            "src/ has no {name}"
        );
        for used in *allowed {
            let of_the_root = ["lock", "wait", "wait_for"].contains(used);
            let below = of_the_root || names[..place].contains(used);
            assert!(
                below,
                "{name} may use {used}, which does not stand below it"
            );
        }
    }
}

#[test]
fn what_decides_about_votes_touches_no_socket_thread_file_clock_or_chance() {
    let mut broken = Vec::new();
    let sources = sources();
    for part in PURE {
        let there = sources.iter().any(|source| source.name.starts_with(part));
        assert!(there, "src/ has no {part}");
    }
    for source in sources {
        if !PURE.iter().any(|part| source.name.starts_with(part)) {
            continue;
        }
        for (number, line) in source.lines.iter().enumerate() {
            for word in WORLD.iter().filter(|word| line.contains(**word)) {
                broken.push(format!("{}: mentions {word}", source.place(number)));
            }
        }
    }
    report(
        &broken,
        "time and chance are arguments here, and I/O is somebody else's:",
    );
}

#[test]
fn the_plain_client_needs_nothing_but_the_standard_library() {
    let mut broken = Vec::new();
    for source in sources()
        .iter()
        .filter(|source| source.name == "client/mod.rs")
    {
        for (number, line) in source.lines.iter().enumerate() {
            let used = line.trim().strip_prefix("use ");
            if used.is_some_and(|used| !used.starts_with("std::")) {
                broken.push(format!("{}: {line}", source.place(number)));
            }
        }
    }
    report(
        &broken,
        "the plain client is to be copied into any other project:",
    );
}

#[test]
fn a_file_is_read_in_one_sitting() {
    let too_long = sources().into_iter().filter_map(|source| {
        let lines = source.lines.iter().rposition(|line| !line.is_empty())? + 1;
        (lines > LONGEST_FILE).then(|| format!("src/{}:{lines}: ends only here", source.name))
    });
    let rule = format!("more than {LONGEST_FILE} lines before the tests:");
    report(&too_long.collect::<Vec<_>>(), &rule);
}

#[test]
fn the_scan_sees_paths_groups_and_nothing_else() {
    let cases: [(&str, &[&str]); 6] = [
        ("use crate::protocol::ring::{NodeId, Ring};", &["protocol"]),
        (
            "use crate::{lock, transport::{self, Lines}, bytes};",
            &["lock", "transport", "bytes"],
        ),
        (
            "    crate::lock(&self.a).b(crate::transport::batch)",
            &["lock", "transport"],
        ),
        ("pub(crate) fn lock() {}", &[]),
        ("subcrate::bytes", &[]),
        ("use super::Node;", &[]),
    ];
    for (line, expected) in cases {
        assert_eq!(named_behind("crate::", line), expected, "{line}");
    }
    assert_eq!(without_comment("a // crate::b"), "a ");
    let text = "a\n#[cfg(test)]\nmod tests {\n    b();\n}\nc\n#[cfg(test)]\nuse d;\ne";
    let mut lines: Vec<String> = text.lines().map(String::from).collect();
    blank_out_tests(&mut lines);
    assert_eq!(lines, ["a", "", "", "", "", "c", "", "", "e"]);
}
