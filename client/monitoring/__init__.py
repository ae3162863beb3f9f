"""Whether images, features and answers still look as they did, and whether answers are right."""
