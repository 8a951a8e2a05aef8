"""The CLIP architectures by name. A checkpoint's config.json must agree with the named one."""

from jaxord.models.clip import ClipSettings, Tower

# Of the channels, RGB in [0, 1], over CLIP's training images.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def _openai(image_size, patch_size, vision, text, projection_dim):
    """An OpenAI CLIP from (width, layers) of both towers: 64 channels a head, MLPs 4 x as wide."""
    towers = [Tower(width=w, layers=n, heads=w // 64, mlp=4 * w) for w, n in (vision, text)]
    # Vocabulary of 49,408 byte pairs, the last of which ends a sentence of at most 77 tokens.
    return ClipSettings(*towers, image_size, patch_size, 49408, 77, projection_dim, 49407)


VARIANTS = {
    "ViT-B/32": _openai(224, 32, vision=(768, 12), text=(512, 12), projection_dim=512),
    "ViT-B/16": _openai(224, 16, vision=(768, 12), text=(512, 12), projection_dim=512),
    "ViT-L/14": _openai(224, 14, vision=(1024, 24), text=(768, 12), projection_dim=768),
    "ViT-L/14-336": _openai(336, 14, vision=(1024, 24), text=(768, 12), projection_dim=768),
    # For models from scratch and tests: minutes on a CPU. The vocabulary is that of
    # jaxord.models.tokens.byte_tokenizer; sentences of bytes are long, hence the positions.
    "tiny": ClipSettings(
        vision=Tower(width=64, layers=4, heads=4, mlp=256),
        text=Tower(width=64, layers=2, heads=4, mlp=256),
        image_size=32,
        patch_size=8,
        vocab_size=258,
        max_positions=128,
        projection_dim=64,
        eos_token_id=257,
    ),
}
