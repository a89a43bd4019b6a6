//! The listeners end to end, over real sockets.
