//! What archives say: percentiles, comparisons, heat maps and exports. Pure readers; nothing here
//! needs privileges or kernel support.

pub mod aggregate;
pub mod cli;
pub mod diff;
pub mod export;
pub mod heatmap;
pub mod hist;
pub mod output;
pub mod picture;
pub mod run;
pub mod summary;
pub mod synthetic;
pub mod table;
pub mod times;
pub mod units;
