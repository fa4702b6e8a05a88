//! What a hook is told: one flat JSON object. A command gets it on its standard input, and each field of it
//! as a variable; a webhook gets it as the body.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// More of one value is in the JSON only: no program can be started with a variable of 128 kB, and a character may
/// take four bytes.
const LONGEST_VARIABLE: usize = 30_000;

/// What happened, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The same for every attempt to deliver it, and never given again.
    pub id: String,
    /// Which event.
    pub event: String,
    /// The facts.
    pub facts: Map<String, Value>,
}

impl Notice {
    /// The object, with what is known only now.
    pub fn object(&self, present: &Map<String, Value>) -> Map<String, Value> {
        let mut object = self.facts.clone();
        object.insert("event_id".to_owned(), Value::from(self.id.clone()));
        object.insert("event".to_owned(), Value::from(self.event.clone()));
        object.extend(present.iter().map(|(name, value)| (name.clone(), value.clone())));
        object
    }
}

/// The fields of an object as variables: `PGTANDEM_` and the name in capitals. What is not there (null) is
/// empty; what is not flat is JSON.
pub fn variables(object: &Map<String, Value>) -> Vec<(String, String)> {
    let variable = |(name, value): (&String, &Value)| {
        let text = match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                value.to_string()
            }
        };
        // Nothing with a zero byte can be passed on.
        let text = text.chars().filter(|c| *c != '\0').take(LONGEST_VARIABLE).collect();
        (format!("PGTANDEM_{}", name.to_uppercase()), text)
    };
    object.iter().map(variable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_variables() {
        let facts = json!({ "epoch": 3, "primary_host": null, "role": "standby" });
        let notice = Notice {
            id: "default-1-7".to_owned(),
            event: "on_role_change".to_owned(),
            facts: facts.as_object().unwrap().clone(),
        };
        let object = notice.object(json!({ "attempt": 2 }).as_object().unwrap());
        let pairs: Vec<_> =
            variables(&object).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let expected = [
            "PGTANDEM_ATTEMPT=2",
            "PGTANDEM_EPOCH=3",
            "PGTANDEM_EVENT=on_role_change",
            "PGTANDEM_EVENT_ID=default-1-7",
            "PGTANDEM_PRIMARY_HOST=",
            "PGTANDEM_ROLE=standby",
        ];
        assert_eq!(pairs, expected);
    }
}
