"""LDS (Yang et al., ICML 2021): weights inverse to the smoothed frequency of the label; L1
(sentences: MSE).

kernel=gaussian|triang|laplace, with size 5 and sigma 2 as in the README's commands (the program's
defaults for AgeDB are 9 and 1). scheme=sqrt_inverse|inverse: the root of the frequency for ages,
the frequency for STS-B, as in these commands.
"""

from configs import recipes

from_scratch = recipes.dir_program


def apply(config, kernel="gaussian", scheme=""):
    recipes.lds(config, kernel, scheme)
    recipes.regression(config, recipes.plain(config))
