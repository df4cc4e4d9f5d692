"""What texts are about: topics that are found, named, kept and grown."""

from tercet.represent.topics.find import cluster
from tercet.represent.topics.growth import Growth
from tercet.represent.topics.settings import TopicSettings
from tercet.represent.topics.topics import Said, Topic, Topics

__all__ = ["Growth", "Said", "Topic", "TopicSettings", "Topics", "cluster"]
