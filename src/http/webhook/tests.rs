//! Webhooks over loopback.
