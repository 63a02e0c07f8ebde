//! Clusters of real processes on free ports, and what clients see of them while nodes are killed,
//! paused, cut off, and lose their disks.

#[path = "../support/mod.rs"]
mod support;

mod capacity;
mod catching_up;
mod chain;
mod chain_faults;
mod chat;
mod clients;
mod commands;
mod copied_folders;
mod crash_points;
mod data;
mod failure;
mod given_up;
mod group_limits;
mod groups;
mod listing;
mod lost_folder;
mod negative_controls;
mod network;
mod order;
mod peers;
mod pipelines;
mod rebuild;
mod recovery;
mod routed;
mod sizes;
mod slow_disks;
mod slow_replicas;
mod starting;
mod sync_os;
mod tombstones;
