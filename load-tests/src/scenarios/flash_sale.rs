//! One hot sku among many: whether it is sold to the last unit and no further, and whether it slows anybody else.
