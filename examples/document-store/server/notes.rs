//! What a node remembers of the command that first started it, so that the same command starts it again, and a shorter one
//! too.
//!
//! The state, the terms and who belongs to the group are in the log's directory and none of this file's business. It holds
//! what is said on the command line and must not change or be forgotten: who the node is, whom it was told to follow
//! and the witness. It is written once the node belongs to a store, and not before: a first command that was wrong leaves
//! nothing behind. And who the other nodes are, for an operator who wants force: they are asked before the log is opened.

use super::place::Place;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

/// What is remembered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Notes {
    /// Where the node is.
    pub node: String,
    /// The leader that it was given.
    pub leader: Option<String>,
    /// The witness.
    pub witness: Option<String>,
    /// The nodes of the store when that was last agreed on, to be asked before force.
    #[serde(default)]
    pub nodes: Vec<String>,
}

impl Notes {
    /// The notes in `directory`, if there are any, brought together with what is said now.
    ///
    /// # Errors
    /// When the directory is another node's or of a store with another witness, or cannot be read.
    pub fn consult(directory: &Path, said: Self) -> Result<Self, String> {
        match Self::read(directory)? {
            Some(before) => before.meets(said, directory),
            None => Ok(said),
        }
    }

    /// Keeps the notes in `directory`, which is made if need be.
    ///
    /// # Errors
    /// When the directory cannot be read or written.
    pub fn keep(&self, directory: &Path) -> Result<(), String> {
        if Self::read(directory)?.as_ref() == Some(self) {
            return Ok(());
        }
        let file = directory.join(FILE);
        let cannot = |e| format!("cannot write {}: {e}", file.display());
        fs::create_dir_all(directory).map_err(cannot)?;
        self.write(&file).map_err(cannot)
    }

    fn read(directory: &Path) -> Result<Option<Self>, String> {
        let file = directory.join(FILE);
        match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
                format!(
                    "cannot understand {}: {e}; remove it, and start the node with its whole first command (--witness too, if the store has one)",
                    file.display()
                )
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(format!(
                "cannot read {}: {e}; choose another path for the store, or make it readable",
                file.display()
            )),
        }
    }

    fn meets(self, said: Self, directory: &Path) -> Result<Self, String> {
        if self.node != said.node {
            return Err(format!(
                "{} holds the data of {}, not of {}: choose another path",
                directory.display(),
                self.node,
                said.node
            ));
        }
        if let (before, Some(now)) = (&self.witness, &said.witness)
            && before.as_ref() != Some(now)
        {
            let before = before.as_deref().unwrap_or("no witness");
            return Err(format!(
                "this node's store has had {before} since it began, and now --witness {now} is said. If the witness has moved, stop \
                 all nodes and write the new address into {}; a store without one cannot get one",
                directory.join(FILE).display()
            ));
        }
        Ok(Self {
            leader: said.leader.or(self.leader),
            ..self
        })
    }

    /// Writes the file whole or not at all.
    fn write(&self, file: &Path) -> io::Result<()> {
        let new = file.with_extension("new");
        let mut out = fs::File::create(&new)?;
        serde_json::to_writer_pretty(&mut out, self)?;
        out.write_all(b"\n")?;
        out.sync_all()?;
        fs::rename(&new, file)
    }
}

/// Notes of a node at `place`.
#[must_use]
pub fn of(place: Place, leader: Option<Place>, witness: Option<&str>) -> Notes {
    Notes {
        node: place.to_string(),
        leader: leader.map(|leader| leader.to_string()),
        witness: witness.map(ToOwned::to_owned),
        nodes: Vec::new(),
    }
}

const FILE: &str = "node.json";

#[cfg(test)]
mod tests {
    use super::*;

    fn said(node: &str, leader: Option<&str>, witness: Option<&str>) -> Notes {
        Notes {
            node: node.into(),
            leader: leader.map(Into::into),
            witness: witness.map(Into::into),
            nodes: Vec::new(),
        }
    }

    #[test]
    fn what_was_said_once_need_not_be_said_again() {
        let temporary = tempfile::tempdir().expect("a directory");
        let directory = temporary.path().join("db").join("8001");
        let first = said("a:8001", Some("a:8000"), Some("w:7000"));
        let keep = |said: &Notes| {
            let notes = Notes::consult(&directory, said.clone())?;
            notes.keep(&directory).map(|()| notes)
        };
        assert_eq!(keep(&first), Ok(first.clone()));
        assert_eq!(keep(&said("a:8001", None, None)), Ok(first.clone()));
        let moved = said("a:8001", Some("a:8002"), None);
        let leader = moved.leader.clone();
        assert_eq!(keep(&moved), Ok(Notes { leader, ..first }));
    }

    #[test]
    fn another_node_or_witness_is_refused_with_what_to_do() {
        let temporary = tempfile::tempdir().expect("a directory");
        let keep = |said: Notes| {
            let notes = Notes::consult(temporary.path(), said)?;
            notes.keep(temporary.path())
        };
        keep(said("a:8000", None, None)).expect("the first");
        let other = keep(said("b:8000", None, None)).expect_err("another node");
        assert!(other.contains("another path"), "{other}");
        let witness = keep(said("a:8000", None, Some("w:7000"))).expect_err("a witness");
        assert!(witness.contains("cannot get one"), "{witness}");
        fs::write(temporary.path().join(FILE), "{").expect("it is written");
        assert!(keep(said("a:8000", None, None)).is_err(), "damaged");
        let none = Notes::consult(&temporary.path().join(FILE), said("a:8000", None, None));
        assert!(none.expect_err("a file").contains("choose another path"));
    }
}
