//! Link-layer addresses of neighbours, kept fresh.
