"""What the terms of the report mean, one line each."""

# Written for images; `of_kind` adapts them.
TERMS = {
    "Balanced accuracy": "Mean over the classes of the share that is recognised; every class "
    "counts the same.",
    "Point": "A hundredth: from 85.0 % to 86.4 % is +1.4 points.",
    "Interval": "Where the true value lies in 95 of 100 such measurements, unless stated otherwise.",
    "Split": "One way to divide the real images into those to train on and those held out.",
    "Baseline": "The best training without synthetic images, of all that were tried.",
    "Equal steps": "Synthetic images take the place of real ones in a batch: the same computing.",
    "Equal real draws": "Synthetic images stand beside a whole batch of real ones: more computing.",
    "Recall": "The share of a class's held-out images that the classifier recognises.",
    "Macro F1": "Mean over the classes of F1, which falls with missed and with false detections.",
    "Geometric mean": "Of the recalls: one class that is never recognised makes it 0.",
    "Calibration error": "How far stated probabilities are from how often they come true.",
    "Share": "The part of a batch that is synthetic.",
    "Sampler": "How samples are drawn: edits of real images, or from a density of the class.",
    "Temperature": "Spread of the draws; below 1 they stay nearer to the middle of the class.",
    "Repeated": "Real images that are used more than once, so that classes have the same size.",
    "Candidate": "A sample that was drawn; screening accepts or rejects it.",
    "Near-copy": "A sample nearer to a training image than other real images are.",
    "ELBO": "Evidence lower bound: how probable the model finds images, in nats; higher is better.",
    "KL": "How much information the latents hold about an image, in nats.",
    "Importance-weighted bound": "A tighter bound than the ELBO, from several draws.",
    "Bits per value": "The bound as the length of a code for one value of an image; lower is better.",
    "Active latent units": "Latent units that carry information about the image.",
    "Label control": "Share of images, decoded under another label, that show that label's class.",
    "Covered": "Share of real images with a synthetic one as near as their real neighbours are.",
    "Spread": "How different the samples of a class are, beside its real images.",
    "Sharpness": "Fine detail of the samples, beside that of real images.",
}
