//! The API over loopback, as a plain client and as kubectl see it.
