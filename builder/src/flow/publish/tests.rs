//! A publication is repeated, interrupted, forged.

use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::claim::provenance::statement::SUMMARY;
use crate::host::publication::{Error, Who};
use crate::host::signer::Signer;
use crate::host::tlog::directory::{Unwitnessed, Writer};
use crate::host::tlog::{self, Submission, TransparencyLog};
use crate::host::tlog::{Folder, Recorded};
use crate::trust::envelope::SigningKey;
use crate::trust::transparency::merkle::Hash;
use crate::trust::transparency::note::{self, Note, Role};
use crate::trust::transparency::tlog_policy::Policy;

fn log_key(number: u8) -> note::SigningKey {
    note::SigningKey::new(&format!("log.example/{number}"), Role::Log, &[number; 32]).unwrap()
}

fn statement(disk: &str) -> Statement {
    let text = serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": SUMMARY,
        "predicate": {},
        "subject": [{"name": "disk.raw", "digest": {"sha256": disk.repeat(64)}}],
    });
    Statement::parse(text.to_string().as_bytes()).unwrap()
}

/// A log that fails so many times before it does its work, or after it.
struct Shaky<'a> {
    log: Folder<'a, Unwitnessed>,
    before: Rc<Cell<u32>>,
    after: Rc<Cell<u32>>,
}

fn failure() -> tlog::Error {
    tlog::Error::Status { url: "https://log.example".to_owned(), status: 503, message: String::new() }
}

impl TransparencyLog for Shaky<'_> {
    fn name(&self) -> &str {
        self.log.name()
    }

    fn submit(&mut self, submission: Submission<'_>) -> Result<Recorded, tlog::Error> {
        if self.before.get() > 0 {
            self.before.set(self.before.get() - 1);
            return Err(failure());
        }
        let recorded = self.log.submit(submission);
        if self.after.get() > 0 {
            self.after.set(self.after.get() - 1);
            return Err(failure());
        }
        recorded
    }

    fn checkpoint(&self) -> Result<Note, tlog::Error> {
        self.log.checkpoint()
    }

    fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, tlog::Error> {
        self.log.consistency(old, new)
    }
}

struct Lab {
    root: tempfile::TempDir,
    who: Who,
    policy: Policy,
    text: String,
    before: Rc<Cell<u32>>,
    after: Rc<Cell<u32>>,
}

fn lab() -> Lab {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("out")).unwrap();
    for number in [1, 2] {
        drop(Writer::init(&root.path().join(format!("log{number}")), log_key(number)).unwrap());
    }
    let text = format!("log {}\nlog {}\nquorum none\n", log_key(1).public(), log_key(2).public());
    Lab {
        root,
        who: Who::Key(Signer::Key(SigningKey::from_seed(&[4; 32]).unwrap())),
        policy: Policy::parse(&text).unwrap(),
        text,
        before: Rc::default(),
        after: Rc::default(),
    }
}

impl Lab {
    fn publish(&self, statement: &Statement) -> Result<Published, Error> {
        let folder = self.root.path().join("out");
        let logs = [1, 2].map(|number| {
            let place = self.root.path().join(format!("log{number}"));
            let writer = Writer::open(&place, log_key(number)).unwrap();
            let log = Folder { writer, cosigners: Unwitnessed, policy: &self.policy };
            let (before, after) = match number {
                1 => (Rc::default(), Rc::default()),
                _ => (Rc::clone(&self.before), Rc::clone(&self.after)),
            };
            Box::new(Shaky { log, before, after }) as Box<dyn TransparencyLog>
        });
        let mut publisher = Publisher {
            folder: &folder,
            who: &self.who,
            logs: logs.into(),
            stamps: None,
            authorities: None,
            policy: &self.policy,
            policy_text: &self.text,
        };
        publish(&mut publisher, "provenance", statement)
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        std::fs::read_dir(self.root.path().join("out"))
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
            })
            .collect()
    }

    fn sizes(&self) -> [u64; 2] {
        [1, 2].map(|number| {
            let place = self.root.path().join(format!("log{number}"));
            Writer::open(&place, log_key(number)).unwrap().state().size()
        })
    }
}

#[test]
fn a_statement_is_published_once_whatever_is_repeated() {
    let lab = lab();
    let first = lab.publish(&statement("1")).unwrap();
    assert_eq!(first.asked.len(), 2);
    let files = lab.files();
    let names: Vec<_> = files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "provenance.2.tlog-proof",
            "provenance.dsse.json",
            "provenance.sigstore.json",
            "provenance.tlog-proof",
            "publish.json",
            "signer.pub",
            "tlog-policy",
            "trusted_root.json",
        ]
    );
    let again = lab.publish(&statement("1")).unwrap();
    assert_eq!((again.asked.len(), again.logs, lab.files()), (0, first.logs, files.clone()));
    // Without its journal it asks the logs, which have it.
    std::fs::remove_file(lab.root.path().join("out/publish.json")).unwrap();
    assert_eq!(lab.publish(&statement("1")).unwrap().asked.len(), 2);
    assert_eq!(lab.files(), files);
    assert_eq!(lab.sizes(), [1, 1]);
    // Another statement is another entry.
    lab.publish(&statement("2")).unwrap();
    assert_eq!(lab.sizes(), [2, 2]);
}

#[test]
fn a_publication_goes_on_where_it_failed() {
    let lab = lab();
    lab.before.set(1);
    lab.after.set(1);
    for _ in 0..2 {
        assert!(
            matches!(lab.publish(&statement("1")), Err(Error::Log { log, .. }) if log == "log.example/2")
        );
        assert!(!lab.root.path().join("out/provenance.sigstore.json").exists());
    }
    let published = lab.publish(&statement("1")).unwrap();
    assert_eq!(published.asked, ["log.example/2"]);
    assert_eq!(lab.sizes(), [1, 1]);
}

#[test]
fn a_forged_journal_or_another_signer_is_noticed() {
    let mut lab = lab();
    lab.publish(&statement("1")).unwrap();
    let path = lab.root.path().join("out/publish.json");
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, good.replacen("index 0", "index 1", 1)).unwrap();
    assert!(matches!(lab.publish(&statement("1")), Err(Error::Stale { .. })));
    std::fs::write(&path, "{").unwrap();
    assert!(matches!(lab.publish(&statement("1")), Err(Error::Journal { .. })));
    std::fs::write(&path, good.replace("\"logIndex\": \"0\"", "\"logIndex\": \"7\"")).unwrap();
    assert!(matches!(lab.publish(&statement("1")), Err(Error::Refused { .. })));
    std::fs::write(&path, &good).unwrap();
    lab.who = Who::Key(Signer::Key(SigningKey::from_seed(&[5; 32]).unwrap()));
    assert_eq!(lab.publish(&statement("1")).unwrap().asked.len(), 2);
    assert_eq!(lab.sizes(), [2, 2]);
}
