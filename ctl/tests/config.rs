//! `pgtandem config`: what it asks for, what it waits for, and how it ends.

use crate::command::{code, json_of, pgtandem};
use crate::server::serve;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::process::Command;

/// A monitor whose only node takes a setting at the third question, or refuses it.
#[derive(Clone, Default)]
struct Monitor {
    asked: Arc<Mutex<Vec<Value>>>,
    looks: Arc<Mutex<usize>>,
    refused: Option<&'static str>,
    never: bool,
}

impl Monitor {
    fn config(&self) -> Value {
        let mut looks = self.looks.lock().unwrap();
        *looks += 1;
        let applied = *looks >= 3 && !self.never && self.refused.is_none();
        json!({
            "formation": "default", "revision": 7, "values": { "work_mem": "8MB", "x.y": "it's" },
            "nodes": [{
                "name": "node1", "values": {}, "reachable": true, "applied": applied,
                "in_force": { "work_mem": "8MB" }, "pending_restart": ["shared_buffers"],
                "refused": self.refused, "waits": []
            }]
        })
    }

    fn act(&self, action: Value) -> (StatusCode, Json<Value>) {
        let bad = action.pointer("/changes/foo").is_some();
        self.asked.lock().unwrap().push(action);
        if bad {
            let message = "foo: PostgreSQL 15.18 has no such setting";
            let error =
                json!({ "code": 1, "reason": "unknown_setting", "message": message, "nodes": [] });
            return (StatusCode::BAD_REQUEST, Json(error));
        }
        let result = json!({
            "id": 0, "outcome": "done", "reason": "it is so now", "old_primary": "node1",
            "new_primary": "node1", "timeline": 1, "started_at": "2026-01-02T03:04:05Z",
            "finished_at": "2026-01-02T03:04:05Z"
        });
        (StatusCode::OK, Json(result))
    }

    async fn serve(&self) -> String {
        let (look, act) = (self.clone(), self.clone());
        let router = Router::new()
            .route(
                "/v1/formations/default/postgres-settings",
                get(move || async move { Json(look.config()) }),
            )
            .route(
                "/v1/formations/default/actions",
                post(move |Json(action): Json<Value>| async move { act.act(action) }),
            );
        serve(router).await.to_string()
    }

    fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_change_is_one_request_and_waits_for_the_nodes() {
    let monitor = Monitor::default();
    let url = monitor.serve().await;
    let arguments = [
        "config",
        "set",
        "work_mem=8MB",
        "a.b=x=y",
        "--node",
        "node1",
        "--monitor",
        &url,
        "--json",
    ];
    let output = pgtandem(&arguments).await;
    assert_eq!((code(&output), &json_of(&output)["outcome"]), (0, &json!("done")));
    assert_eq!(*monitor.looks.lock().unwrap(), 3);
    let output = pgtandem(&["config", "unset", "work_mem", "--no-wait", "--monitor", &url]).await;
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "done: it is so now\n");
    assert_eq!(*monitor.looks.lock().unwrap(), 3);
    let asked = monitor.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!((&asked[0]["action"], &asked[0]["node"]), (&json!("configure"), &json!("node1")));
    assert_eq!(asked[0]["changes"], json!({ "work_mem": "8MB", "a.b": "x=y" }));
    assert_eq!(
        (&asked[1]["node"], &asked[1]["changes"]),
        (&Value::Null, &json!({ "work_mem": null }))
    );
}

#[tokio::test]
async fn what_is_not_done_has_its_exit_code() {
    let refusing = Monitor { refused: Some("work_mem: no"), ..Monitor::default() };
    let url = refusing.serve().await;
    let output = pgtandem(&["config", "set", "work_mem=8MB", "--monitor", &url, "--json"]).await;
    let json = json_of(&output);
    assert_eq!((code(&output), &json["outcome"]), (3, &json!("failed")));
    assert_eq!(json["reason"], "node1 keeps what it had: work_mem: no");

    let silent = Monitor { never: true, ..Monitor::default() };
    let url = silent.serve().await;
    let arguments = ["config", "set", "a.b=1", "--timeout", "1", "--monitor", &url, "--json"];
    let output = pgtandem(&arguments).await;
    let json = json_of(&output);
    assert_eq!((code(&output), &json["outcome"]), (5, &json!("timeout")));
    assert!(json["reason"].as_str().unwrap().contains("not read yet by node1"), "{json}");

    let output = pgtandem(&["config", "set", "foo=1", "--monitor", &url, "--json"]).await;
    assert_eq!((code(&output), &json_of(&output)["reason"]), (1, &json!("unknown_setting")));
    let output = pgtandem(&["config", "show", "node9", "--monitor", &url, "--json"]).await;
    assert_eq!((code(&output), &json_of(&output)["reason"]), (1, &json!("unknown_node")));
    let output = pgtandem(&["config", "show", "node1", "--monitor", &url]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("shared_buffers  -          - (waits for a restart)"), "{text}");
    assert!(text.ends_with("node1: has not read the newest settings yet\n"), "{text}");
}

/// Runs `config edit` with an editor that does this with the file.
async fn edit(url: &str, script: &str, directory: &std::path::Path) -> Output {
    let editor = directory.join("editor");
    std::fs::write(&editor, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgtandem"));
    command.args(["config", "edit", "--monitor", url]);
    command.env("EDITOR", &editor).env_remove("VISUAL").env("TMPDIR", directory).kill_on_drop(true);
    tokio::time::timeout(Duration::from_secs(30), command.output()).await.unwrap().unwrap()
}

/// The texts that were kept.
fn kept(directory: &std::path::Path) -> Vec<String> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let texts = files.filter(|path| path.extension().is_some_and(|it| it == "conf"));
    texts.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

#[tokio::test]
async fn an_editor_makes_one_request_of_all_changes() {
    let monitor = Monitor::default();
    let url = monitor.serve().await;
    let directory = tempfile::tempdir().unwrap();
    let output = edit(&url, "true", directory.path()).await;
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(output.stdout.starts_with(b"unchanged"), "{output:?}");
    assert_eq!((monitor.asked().len(), kept(directory.path()).len()), (0, 0));

    let script =
        "grep -q \"^x.y = 'it''s'\" \"$1\" || exit 9; echo \"work_mem = '16MB'\nc.d = 1\" > \"$1\"";
    let output = edit(&url, script, directory.path()).await;
    assert_eq!(code(&output), 0, "{output:?}");
    let asked = monitor.asked();
    assert_eq!(asked[0]["changes"], json!({ "work_mem": "16MB", "c.d": "1", "x.y": null }));
    assert_eq!(asked[0]["if_revision"], 7);
    assert!(kept(directory.path()).is_empty());
}

#[tokio::test]
async fn nothing_that_was_typed_is_lost() {
    let monitor = Monitor::default();
    let url = monitor.serve().await;
    for (script, code_, said) in [
        (
            "printf 'a.b = 1\\nfoo = 2\\n' > \"$1\"",
            1,
            "line 2: foo: PostgreSQL 15.18 has no such setting",
        ),
        ("echo what > \"$1\"", 1, "line 1: 'what' is not name = 'value'"),
        ("echo typed > \"$1\"; exit 1", 2, "has failed"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let output = edit(&url, script, directory.path()).await;
        let stderr = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!(code(&output), code_, "{stderr}");
        assert!(stderr.contains(said) && stderr.contains("the text is kept in"), "{stderr}");
        assert_eq!(kept(directory.path()).len(), 1);
    }
}
