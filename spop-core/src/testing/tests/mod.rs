//! The two reactors against each other.

mod echo;
mod interop;
mod scenes;
mod strategies;
mod transcripts;

use alloc::{vec, vec::Vec};
use core::time::Duration;

use proptest::prelude::*;

use self::{
    echo::{Profile, check_frames, handler, question},
    strategies::{capabilities, conditions, frame_size, profile},
};
use super::*;
use crate::{Actions, Scope, Value, frame::Capabilities};
