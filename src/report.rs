//! What archives say: percentiles, comparisons, heat maps and exports. Pure readers; nothing here
//! needs privileges or kernel support.

pub mod aggregate;
pub mod cells;
pub mod cli;
pub mod diff;
pub mod export;
pub mod failure;
pub mod heatmap;
pub mod hist;
pub mod openmetrics;
pub mod output;
pub mod parquet;
pub mod picture;
pub mod progress;
pub mod run;
pub mod summary;
pub mod synthetic;
pub mod table;
pub mod times;
pub mod units;
