//! Times and view names as people write them.
