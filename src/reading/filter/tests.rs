//! What goes, and that nothing else does.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const ALL: Rule = Rule {
    managed_fields: ManagedFields::Dropped,
    annotations: false,
    labels: false,
    owners: false,
    size: Size::Any,
};
const THIN: Rule = Rule {
    managed_fields: ManagedFields::Thin,
    annotations: true,
    labels: true,
    owners: true,
    size: Size::Any,
};
/// What users may write.
const BOUNDED: Rule = Rule {
    managed_fields: ManagedFields::Thin,
    annotations: true,
    labels: true,
    owners: true,
    size: Size::Bounded,
};

fn filtered(rule: Rule, text: &str) -> Value {
    let out = Filter::new(rule).handle_bytes(text.as_bytes());
    serde_json::from_slice(&out).expect("it stays JSON")
}

fn object(managed_fields: &Value) -> Value {
    json!({
        "kind": "Service",
        "metadata": {
            "annotations": { "a": "{\"managedFields\":[" },
            "labels": { "managedFields": "x" },
            "managedFields": managed_fields,
            "name": "a",
            "ownerReferences": [{ "name": "o" }],
        },
        "spec": { "metadata": { "managedFields": 1, "labels": 2 }, "managedFields": [3] },
    })
}

fn expected(managed_fields: &Value, rule: Rule) -> Value {
    let mut object = object(managed_fields);
    let metadata = &mut object["metadata"];
    if !rule.annotations {
        metadata["annotations"] = Value::Null;
    }
    if !rule.labels {
        metadata["labels"] = Value::Null;
    }
    if !rule.owners {
        metadata["ownerReferences"] = Value::Null;
    }
    match (
        rule.managed_fields,
        metadata["managedFields"].as_array_mut(),
    ) {
        (ManagedFields::Thin, Some(entries)) => {
            for entry in entries {
                let fields = entry.as_object_mut().expect("an entry");
                fields.entry("time").and_modify(|time| *time = Value::Null);
            }
        }
        (ManagedFields::Thin, None) => {}
        (ManagedFields::Dropped, _) => metadata["managedFields"] = Value::Null,
    }
    object
}

#[test]
fn what_nobody_reads_goes_from_objects_lists_and_events_and_from_nowhere_else() {
    let entries =
        json!([{ "manager": "x", "time": "9999-12-31T23:59:59Z", "fieldsV1": { "f:a": {} } }]);
    for rule in [ALL, THIN, BOUNDED] {
        let (object, expected) = (object(&entries), expected(&entries, rule));
        assert_eq!(filtered(rule, &object.to_string()), expected);
        let list = json!({ "items": [object, object], "metadata": { "resourceVersion": "1" } });
        let lean = json!({ "items": [expected, expected], "metadata": { "resourceVersion": "1" } });
        assert_eq!(filtered(rule, &list.to_string()), lean);
        let event = |object: &Value| json!({ "type": "ADDED", "object": object });
        let mut filter = Filter::new(rule);
        for _ in 0..2 {
            let line = format!("{}\n", event(&object));
            let out = filter.handle_bytes(line.as_bytes());
            let out: Value = serde_json::from_slice(&out).expect("it stays JSON");
            assert_eq!(out, event(&expected));
        }
    }
}

#[test]
fn what_is_long_or_deep_is_dropped_before_it_is_held() {
    let nested = |depth: usize| format!("{}{{}}{}", "{\"f:a\":".repeat(depth), "}".repeat(depth));
    let object = |fields: &str| {
        format!(
            r#"{{"metadata":{{"managedFields":[{{"manager":"x","time" : 12 ,"fieldsV1": {fields} }}],"name":"a"}}}}"#
        )
    };
    let fields = |text: &str| {
        let entries = &filtered(THIN, text)["metadata"]["managedFields"];
        assert_eq!(entries[0]["time"], Value::Null);
        assert_eq!(entries[0]["manager"], "x");
        entries[0]["fieldsV1"].clone()
    };
    let small = nested(FIELDS_DEPTH_MAX - 1);
    assert_eq!(fields(&object(&small)).to_string(), small);
    assert_eq!(fields(&object(&nested(FIELDS_DEPTH_MAX))), Value::Null);
    assert_eq!(fields(&object(&nested(5_000))), Value::Null);
    let long = format!(r#"{{"f:a":"{}"}}"#, "x".repeat(FIELDS_BYTES_MAX));
    assert_eq!(fields(&object(&long)), Value::Null);
    for text in [small, long, nested(5_000)] {
        let lean = filtered(ALL, &object(&text));
        assert_eq!(
            lean,
            json!({ "metadata": { "managedFields": null, "name": "a" } })
        );
    }
}

/// Nearly as much as etcd takes.
const HUGE: usize = 700_000;

/// The parts of an object, each far too large, as users may write them.
fn huge() -> Vec<(&'static str, Value)> {
    let word = "x".repeat(HUGE);
    let entries = |of: &dyn Fn(usize) -> Value| (0..HUGE / 10).map(of).collect::<Vec<_>>();
    let keys = (0..HUGE / 10).map(|number| (format!("k{number}"), json!("")));
    let keys = Value::Object(keys.collect());
    let metadata = |field: &str, value: Value| json!({ field: value });
    vec![
        (
            "metadata",
            metadata("finalizers", vec!["a/b"; HUGE / 6].into()),
        ),
        (
            "metadata",
            metadata("ownerReferences", entries(&|n| json!({ "uid": n })).into()),
        ),
        ("metadata", metadata("labels", keys.clone())),
        ("metadata", metadata("annotations", keys.clone())),
        ("metadata", metadata("annotations", json!({ "a": word }))),
        ("metadata", metadata("selfLink", word.clone().into())),
        ("spec", json!({ "a": word })),
        ("spec", json!({ "a": keys })),
        ("status", entries(&|n| n.into()).into()),
    ]
}

#[test]
fn what_is_too_large_is_read_by_nobody_and_the_name_and_what_is_beside_it_are() {
    for (part, value) in huge() {
        let mut object = json!({
            "kind": "K",
            "metadata": { "name": "a", "uid": "u", "deletionTimestamp": "t" },
            "spec": { "b": [1, 2] },
        });
        let mut expected = object.clone();
        if part == "metadata" {
            let (field, value) = value
                .as_object()
                .and_then(|of| of.iter().next())
                .expect("a field");
            object[part][field] = value.clone();
            expected[part][field] = TOO_LARGE.into();
        } else {
            object[part] = value;
            expected[part] = TOO_LARGE.into();
        }
        assert_eq!(filtered(BOUNDED, &object.to_string()), expected);
        let small = json!({ "metadata": { "name": "b", "finalizers": ["a/b"] } });
        let list = |object: &Value| json!({ "items": [small, object, small], "metadata": { "continue": "c" } });
        assert_eq!(
            filtered(BOUNDED, &list(&object).to_string()),
            list(&expected)
        );
        let event = |object: &Value| json!({ "type": "MODIFIED", "object": object });
        assert_eq!(
            filtered(BOUNDED, &event(&object).to_string()),
            event(&expected)
        );
    }
    let managers: Vec<Value> = (0..HUGE / 10)
        .map(|n| json!({ "manager": n.to_string() }))
        .collect();
    let object = json!({ "metadata": { "name": "a", "managedFields": managers } });
    let lean = json!({ "metadata": { "name": "a", "managedFields": null } });
    assert_eq!(filtered(BOUNDED, &object.to_string()), lean);
}

#[test]
fn what_is_held_does_not_grow_with_what_comes() {
    for (part, value) in huge() {
        let mut object = json!({ "metadata": { "name": "a" } });
        object[part] = value;
        let text = object.to_string();
        let (mut filter, mut out) = (Filter::new(BOUNDED), 0);
        for piece in text.as_bytes().chunks(8 << 10) {
            // What is collected is what was made room for.
            out += filter.handle_bytes(piece).capacity();
            assert!(
                filter.held() <= 2 * PART_BYTES_MAX,
                "{part} of {} bytes",
                text.len()
            );
        }
        assert!(
            text.len() > 200_000 && out < 1_000,
            "{out} of {} bytes for {part}",
            text.len()
        );
    }
}

#[test]
fn the_largest_that_the_schema_takes_is_read() {
    let keys = |prefix: &str, value: &str| {
        let keys = (0..16).map(|n| (format!("{prefix}{n:0>316}"), json!(value)));
        Value::Object(keys.collect())
    };
    let port = |n: usize| {
        json!({
            "name": format!("{n:0>63}"), "port": 65_535, "remotePort": 65_535,
            "remoteHost": "h".repeat(253), "appProtocol": "p".repeat(317),
        })
    };
    let spec = json!({
        "className": "c".repeat(253),
        "target": { "ecsTask": { "cluster": "c".repeat(255), "taskId": "t".repeat(64), "runtimeId": "r".repeat(128) } },
        "ports": (0..8).map(port).collect::<Vec<_>>(),
        "reason": "r".repeat(200),
        // The API server writes `<` in six bytes.
        "service": { "name": "s".repeat(63), "labels": keys("l", &"v".repeat(63)), "annotations": keys("a", &"<".repeat(4096)) },
    });
    let finalizers: Vec<String> = (0..20).map(|n| format!("{n:0>317}")).collect();
    let object =
        json!({ "metadata": { "name": "n".repeat(253), "finalizers": finalizers }, "spec": spec });
    let text = object.to_string().replace('<', "\\u003c");
    assert_eq!(filtered(BOUNDED, &text), object);
}

/// Any JSON, with the keys that matter here in any place.
fn any_value() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        "items|object|metadata|managedFields|labels|ownerReferences|finalizers|time|fieldsV1",
        ".*"
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

/// The same over a tree.
fn dropped(value: &Value) -> Value {
    let mut value = value.clone();
    let drop_from = |object: &mut Value| {
        let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
        for (key, value) in metadata.into_iter().flatten() {
            if ["managedFields", "annotations", "labels", "ownerReferences"].contains(&key.as_str())
            {
                *value = Value::Null;
            }
        }
    };
    drop_from(&mut value);
    if let Some(object) = value.get_mut("object") {
        drop_from(object);
    }
    let items = value.get_mut("items").and_then(Value::as_array_mut);
    items.into_iter().flatten().for_each(drop_from);
    value
}

proptest! {
    #[test]
    fn any_text_in_any_pieces_loses_what_nobody_reads_and_nothing_else(
        value in any_value(),
        pretty in any::<bool>(),
        piece in 1_usize..40,
    ) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let text = text.expect("it is JSON");
        let mut filter = Filter::new(ALL);
        let pieces = text.as_bytes().chunks(piece);
        let out: Vec<u8> = pieces.flat_map(|piece| filter.handle_bytes(piece)).collect();
        let out: Value = serde_json::from_slice(&out).expect("it stays JSON");
        prop_assert_eq!(out, dropped(&value));
    }

    #[test]
    fn no_bytes_are_too_strange(bytes in any::<Vec<u8>>()) {
        for rule in [ALL, THIN, BOUNDED] {
            let _ = Filter::new(rule).handle_bytes(&bytes);
        }
    }
}
