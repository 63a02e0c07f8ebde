//! Data: any key and any value comes back as it was stored, through every node.

use crate::support::cluster::{Cluster, FIVE, THREE};
use crate::support::raw::Raw;

/// A key or a value in the form that any text can take: as a JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[test]
fn a_missing_key_differs_from_an_empty_value_and_equal_values_have_their_own_versions() {
    let cluster = Cluster::start(&FIVE);
    for id in FIVE {
        let mut client = Raw::connect(&cluster.address(id));
        client.send("GET missing\nDEL missing\nCAS missing 5554:1 x\nGET missing\n");
        client.expect("NOT_FOUND\nNOT_FOUND\nCONFLICT -\nNOT_FOUND\n");
    }
    let empty = cluster.done(5554, "PUT empty \"\"");
    let one = cluster.done(5556, "PUT one same");
    let other = cluster.done(5558, "PUT other same");
    for id in FIVE {
        assert_eq!(cluster.call(id, "GET empty"), format!("VALUE {empty} "));
        assert_eq!(cluster.call(id, "GET one"), format!("VALUE {one} same"));
        assert_eq!(cluster.call(id, "GET other"), format!("VALUE {other} same"));
    }
    // Writing the same value again makes a new version.
    assert_ne!(cluster.done(5554, "PUT one same"), one);
}

#[test]
fn whatever_a_value_is_made_of_every_node_returns_it() {
    let cluster = Cluster::start(&FIVE);
    let plain = [
        " spaces at both ends ",
        "tab\tno",
        "5554",
        "5554:1,5556:2",
        "it's a \"quote\" inside",
        "{\"json\": [1]}",
        "\\n is no line end",
        "gr\u{fc}n \u{1f980} \u{4e2d}\u{6587}",
        "NOT_FOUND",
        "END 0",
        "@",
        "*",
        "-",
        "a,b;c|d:e",
    ];
    let special = [
        "two\nlines",
        "carriage\r\nreturn",
        "\"starts with a quote",
        "\u{0}\u{1}\u{7f}",
        "\u{85}\u{2028}",
        "\t",
    ];
    let values = plain.iter().chain(&special);
    for (number, value) in values.enumerate() {
        let key = format!("value{number}");
        let as_line = value.chars().any(char::is_control) || value.starts_with('"');
        let written = if as_line {
            quoted(value)
        } else {
            (*value).to_owned()
        };
        let version = cluster.done(FIVE[number % 5], &format!("PUT {key} {written}"));
        for id in FIVE {
            let mut client = Raw::connect(&cluster.address(id));
            client.send(format!("GET {key}\n"));
            client.expect(format!("VALUE {version} {written}\n"));
        }
    }
}

#[test]
fn whatever_a_key_is_made_of_it_names_one_value() {
    let cluster = Cluster::start(&THREE);
    let long = "k".repeat(1024);
    let keys = [
        "5554",
        "5554:1",
        "\u{1f511}",
        "key=value",
        "a\"b",
        "end\\",
        &long,
        "",
        "my key",
        " ",
        "two\nlines",
        "\"",
        "@x",
        "**",
        "\u{0}",
    ];
    let as_word = |key: &str| {
        let word = !key.is_empty()
            && !key.starts_with('"')
            && !key.chars().any(|c| c == ' ' || c.is_control());
        if word { key.to_owned() } else { quoted(key) }
    };
    for (number, key) in keys.iter().enumerate() {
        cluster.done(THREE[number % 3], &format!("PUT {} {number}", as_word(key)));
    }
    for id in THREE {
        for (number, key) in keys.iter().enumerate() {
            // The quoted form names the same key.
            for form in [as_word(key), quoted(key)] {
                assert_eq!(
                    cluster.get(id, &form),
                    Some(number.to_string()),
                    "{form} through {id}"
                );
            }
        }
        let listing = cluster.list(id, "GET *").unwrap();
        assert_eq!(listing.len(), keys.len());
        for (number, key) in keys.iter().enumerate() {
            let (start, end) = (format!("PAIR {} ", as_word(key)), format!(" {number}"));
            let found = listing
                .iter()
                .any(|line| line.starts_with(&start) && line.ends_with(&end));
            assert!(found, "{key:?} in {listing:?}");
        }
    }
}

#[test]
fn the_largest_value_is_written_and_read_through_every_node() {
    let cluster = Cluster::start(&FIVE);
    for (number, writer) in FIVE.into_iter().enumerate() {
        let letter = char::from(b'a' + number as u8);
        let value = letter.to_string().repeat(1 << 20);
        cluster.done(writer, &format!("PUT big {value}"));
        for id in FIVE {
            let read = cluster.get(id, "big").unwrap();
            assert!(
                read == value,
                "{} bytes through {id}, written through {writer}",
                read.len()
            );
        }
    }
    // Each byte is escaped, so the value is six times as long on the line and between the nodes.
    let controls = quoted(&"\u{1}".repeat(1 << 17));
    cluster.done(5554, &format!("PUT big {controls}"));
    for id in FIVE {
        assert!(cluster.get(id, "big").unwrap() == controls, "through {id}");
    }
    let listing = cluster.list(5558, "GET *").unwrap();
    assert!(listing.len() == 1 && listing[0].ends_with(&controls));
}

#[test]
fn every_node_knows_every_node_and_where_it_stands() {
    let cluster = Cluster::start(&FIVE);
    cluster.await_all_ready();
    let ring = [
        (5562, "177ccecaec32c54b82d5aaafc18a2dadb753e3b1"),
        (5556, "208f7f72b198dadd244e61801abe1ec3a4857bc9"),
        (5554, "33d6357cfaaf0f72991b0ecd8c56da066613c089"),
        (5558, "abf0fd8db03e5ecb199a9b82929e9db79b909643"),
        (5560, "c25ddd596aa7c81fa12378fa725f706d54325d12"),
    ];
    for asked in FIVE {
        for (id, _) in ring.iter().filter(|(id, _)| *id != asked) {
            cluster.await_sight(asked, *id, "up");
        }
        let expected = ring.map(|(id, position)| {
            let state = if id == asked { "self" } else { "up" };
            format!("NODE {id} {position} {} {state}", cluster.address(id))
        });
        assert_eq!(cluster.list(asked, "RING").unwrap(), expected);
    }
}

#[test]
fn a_key_that_stands_where_a_node_stands_is_coordinated_by_it() {
    let cluster = Cluster::start(&FIVE);
    let places = [
        (
            "5554",
            "33d6357cfaaf0f72991b0ecd8c56da066613c089 5554 5558 5560",
        ),
        (
            "5562",
            "177ccecaec32c54b82d5aaafc18a2dadb753e3b1 5562 5556 5554",
        ),
        (
            "5560",
            "c25ddd596aa7c81fa12378fa725f706d54325d12 5560 5562 5556",
        ),
        (
            "foo",
            "0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33 5562 5556 5554",
        ),
    ];
    for id in FIVE {
        for (key, place) in places {
            assert_eq!(
                cluster.call(id, &format!("WHERE {key}")),
                format!("WHERE {place}")
            );
        }
    }
    cluster.done(5562, "PUT 5554 own");
    for id in [5556, 5562] {
        assert_eq!(cluster.own_pairs(id), [""; 0], "{id} does not hold it");
    }
    for id in FIVE {
        assert_eq!(cluster.get(id, "5554").as_deref(), Some("own"));
    }
}
