//! Conditions and their reasons, and why an AWS session ended: the closed enums, each with its meaning.

use serde_json::Value;
use ssm_session_operator::crd;
use ssm_session_operator::crd::condition::ConditionType;

use crate::page;
use crate::page::{code, prose, table};
use crate::troubleshooting::section;

const ABOUT: &str = "What `status.conditions` of an SsmSession can say. The status of a condition follows from its reason. \
A type of which\nnothing is known is absent, and `Unknown` is never said.";

pub fn page() -> String {
    let types = ConditionType::ALL.iter().copied().map(of_type);
    let sections: Vec<_> = types.chain([ends()]).collect();
    page::page("Conditions and reasons", ABOUT, &sections)
}

fn of_type(type_: ConditionType) -> String {
    let conditions = type_.conditions();
    let advice = section(&format!("`{}`:", type_.as_str()));
    advice.assert_names(conditions.iter().map(|condition| condition.reason()));
    let row = |condition: &crd::condition::Condition| {
        [
            code(condition.status().as_str()),
            code(condition.reason()),
            prose(condition.meaning()),
        ]
    };
    let rows: Vec<_> = conditions.iter().map(row).collect();
    let link = advice.link("What to do");
    let table = table(["Status", "Reason", "Meaning"], &rows);
    format!("## {}\n\n{link}.\n\n{table}", advice.heading)
}

fn ends() -> String {
    const PATH: &str = "/schema/openAPIV3Schema/properties/status/properties/history/items/properties/endReason/enum";
    let advice = section("Why a session ended");
    let sessions = crd::definitions().swap_remove(0);
    let version = serde_json::to_value(&sessions.spec.versions[0]).expect("it has a JSON form");
    let reasons = version.pointer(PATH).and_then(Value::as_array);
    let reasons = reasons.expect("a session's end has a closed set of reasons");
    let reasons: Vec<_> = reasons.iter().filter_map(Value::as_str).collect();
    advice.assert_names(reasons.iter().copied());
    let row = |reason: &&str| [code(reason), advice.rows[*reason].meaning.clone()];
    let rows: Vec<_> = reasons.iter().map(row).collect();
    let link = advice.link("What to do");
    let table = table(["Reason", "Meaning"], &rows);
    format!(
        "## {}\n\n`endReason` in `status.history`. {link}.\n\n{table}",
        advice.heading
    )
}
