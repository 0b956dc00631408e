//! Complete systems assembled from the parts of kvrep.

pub mod common;
pub mod demo;
#[path = "document-store/mod.rs"]
pub mod document_store;
#[path = "mqtt-kv/mod.rs"]
pub mod mqtt_kv;
#[path = "multicast-calculator/mod.rs"]
pub mod multicast_calculator;
#[path = "primary-backup-table/mod.rs"]
pub mod primary_backup_table;
#[path = "zk-like-kv/mod.rs"]
pub mod zk_like_kv;

/// The README's programs compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
