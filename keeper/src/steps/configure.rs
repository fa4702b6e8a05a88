//! Files: creating a cluster, making one ours, and the managed configuration.

use super::StepError;
use crate::managed;
use crate::node::{Node, disk};
use crate::pgsettings::Given;
use fsm::node::File;
use postgres::config;
use postgres::durable::Written;
use postgres::hba;
use postgres::instance::InitOptions;
use postgres::programs::Program;
use postgres::storage;
use shared::goal::Assignment;
use std::time::Duration;

/// For the few statements that make roles.
const ROLES_LIMIT: Duration = Duration::from_mins(1);

impl Node {
    /// A new cluster with our roles, before its first start: no HBA rule has to let anybody in.
    pub(super) async fn initialise(&mut self) -> Result<(), StepError> {
        let auth = |default: &str| self.config.auth.clone().unwrap_or_else(|| default.to_owned());
        let options = InitOptions {
            superuser: self.config.superuser.clone(),
            auth_local: auth("peer"),
            auth_host: auth("scram-sha-256"),
            wal_dir: self.config.waldir.clone(),
        };
        self.claim_wal_dir()?;
        if self.state.rebuilding {
            self.remove_half_made()?;
        }
        self.persist(|state| state.rebuilding = true)?;
        let made = self.instance.initdb(&options).await;
        if made.is_ok() {
            self.instance.single_user(&self.roles()?, ROLES_LIMIT).await?;
        }
        self.persist(|state| state.rebuilding = false)?;
        self.forget_server();
        made?;
        let file = File { upstream: None, spec: None, current: true, restore: false };
        self.configure(&file).await
    }

    /// What an attempt before has left, which initdb would not touch and nobody has ever used.
    fn remove_half_made(&self) -> Result<(), StepError> {
        let data_dir = self.instance.data_dir.path();
        let removed = disk(|| {
            self.config.waldir.iter().try_for_each(|dir| storage::empty_wal_dir(dir))?;
            storage::empty_half_made(data_dir)
        });
        removed.map_err(|error| {
            let dir = data_dir.display();
            StepError::NotSo(format!("cannot empty {dir}, where initdb did not end: {error}"))
        })
    }

    /// A cluster that came from elsewhere: roles first, then the files, whose presence says that it
    /// is done.
    pub(super) async fn adopt(&mut self) -> Result<(), StepError> {
        let roles = self.roles()?;
        if self.running().is_none() {
            self.instance.single_user(&roles, ROLES_LIMIT).await?;
        } else {
            self.psql(&roles).await?;
        }
        self.seen.control = None;
        let file = File { upstream: None, spec: None, current: true, restore: false };
        self.configure(&file).await
    }

    fn roles(&self) -> Result<String, StepError> {
        let passwords = self.state.passwords.as_ref();
        let missing = || StepError::NotSo("the passwords of the roles are not known".to_owned());
        let mut sql = managed::roles(passwords.ok_or_else(missing)?);
        if let Some(name) = &self.config.dbname
            && name != "postgres"
        {
            // No IF NOT EXISTS for databases; there is none yet in a new cluster.
            if !self.is_running_somebody_elses() {
                sql += &managed::database(name);
            }
        }
        Ok(sql)
    }

    fn is_running_somebody_elses(&self) -> bool {
        self.running().is_some() || !self.state.rebuilding
    }

    /// Statements on standard input of psql as the owner of the cluster, whom its own HBA rules let
    /// in over the unix socket.
    async fn psql(&self, sql: &str) -> Result<(), StepError> {
        use tokio::io::AsyncWriteExt as _;
        let mut command = postgres::run::command(&self.instance, Program::Psql);
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres"]);
        command.arg("-h").arg(&self.instance.socket_dir);
        let running = self.running();
        let port = running.as_ref().map_or(self.instance.port, |server| server.instance().port);
        command.arg("-p").arg(port.to_string());
        command.arg("-U").arg(&self.config.superuser);
        command.arg("--no-password");
        command.stdin(std::process::Stdio::piped());
        command.stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::piped());
        let failed = |error: std::io::Error| StepError::NotSo(format!("cannot run psql: {error}"));
        let mut child = command.kill_on_drop(true).spawn().map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(sql.as_bytes()).await.map_err(failed)?;
        }
        let output = tokio::time::timeout(ROLES_LIMIT, child.wait_with_output())
            .await
            .map_err(|_| StepError::NotSo("psql does not end".to_owned()))?
            .map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        // The statements have passwords; what psql says of an error is its first line.
        let line = said.lines().next().unwrap_or_default();
        Err(StepError::NotSo(format!(
            "cannot create pgtandem's roles in the running cluster as {}: {line}",
            self.config.superuser
        )))
    }

    /// Writes the managed file, the include line and the HBA block; reloads if something changed. New
    /// settings of the operator that the server does not take are left out again before that.
    pub(super) async fn configure(&mut self, file: &File) -> Result<(), StepError> {
        let Some(persisted) = self.persisted() else {
            return Err(StepError::NotYet("an assignment"));
        };
        let assignment = persisted.assignment.clone();
        let before = self.given();
        let after = self.settings_to_write(&assignment, &before);
        let mut changed = self.write_files(&assignment, file, &after)?;
        if !self.check_settings(&assignment, (&before, &after)).await {
            let kept = self.settings_to_write(&assignment, &before);
            changed |= self.write_files(&assignment, file, &kept)?;
        }
        if changed {
            self.reload();
        }
        Ok(())
    }

    /// Says whether anything changed.
    fn write_files(
        &mut self,
        assignment: &Assignment,
        file: &File,
        given: &Given,
    ) -> Result<bool, StepError> {
        let config = managed::render(self, assignment, file, given);
        let rules = managed::hba_rules(self.config.hba, &assignment.members);
        let (dir, owner) = (&self.instance.data_dir, &self.instance.owner);
        let changed = disk(|| -> Result<bool, StepError> {
            let passwords = self.state.passwords.as_ref();
            if let Some(passwords) = passwords {
                let users = [(managed::REPLICATOR, passwords.replicator.as_str())];
                postgres::conninfo::write_passfile(&self.passfile(), &users, owner)?;
            }
            let written = [
                config.write(dir, owner)?,
                hba::apply(&dir.join("pg_hba.conf"), &rules, owner)?,
                config::ensure_included(dir, owner)?,
            ];
            Ok(written.contains(&Written::Changed))
        })?;
        self.hba = Some(rules);
        Ok(changed)
    }
}
