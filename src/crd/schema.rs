//! Schemas of map values, for which the derive has no attribute.

use serde_json::{Value, json};

/// A text of `chars_min` to `chars_max` characters.
pub(super) fn text(chars_min: u32, chars_max: u32) -> Value {
    let mut schema = json!({ "type": "string", "maxLength": chars_max });
    if chars_min > 0 {
        schema["minLength"] = chars_min.into();
    }
    schema
}

/// A list of at most `items_max` texts of 1 to `chars_max` characters.
pub(super) fn texts(items_max: u32, chars_max: u32) -> Value {
    json!({ "type": "array", "maxItems": items_max, "items": text(1, chars_max) })
}
