"""Ready-made curricula, one readable file each; `rlstages curricula` lists them."""
