//! Cell + vocabulary + settings → tokens.
