//! A runtime without an engine, for tests of what uses one.
